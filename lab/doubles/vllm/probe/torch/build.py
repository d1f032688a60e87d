"""Which build of torch this is: that of vLLM 0.19.1's image. Another image's double has this file with other values."""

VERSION = "2.10.0+cu129"
ARCHITECTURES = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
