"""MONAI Label's own client in its own environment: a call a line in, what it gave or raised a line out."""

import json
import sys

from monailabel.client import MONAILabelClient

client = MONAILabelClient(sys.argv[1], tmpdir=sys.argv[2])
for line in sys.stdin:
    name, arguments, options = json.loads(line)
    try:
        answer = {"result": getattr(client, name)(*arguments, **options)}
    except Exception as error:
        answer = {"error": getattr(error, "msg", str(error))}
    print(json.dumps(answer), flush=True)
