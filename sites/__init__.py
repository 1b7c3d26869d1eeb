"""Hospital exports to MEDS, harmonised concepts, codes, splits, simulated hospitals."""
