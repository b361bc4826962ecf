"""Everything with a side effect: data on disk, runs, reports and the command line."""

import warnings

# Said each time that MONAI lists its image readers; the one that is missing reads DICOM on a GPU.
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
