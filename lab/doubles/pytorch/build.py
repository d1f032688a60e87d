"""Which build of torch this is: that of pytorch/pytorch:2.10.0-cuda12.6-cudnn9-runtime (pytorch/pytorch issue 172352)."""

VERSION = "2.10.0+cu126"
ARCHITECTURES = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
