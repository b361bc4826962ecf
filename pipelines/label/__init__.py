"""MONAI Label: annotators correct what the bundles segment, and the bundles learn from it."""
