"""Hypothesis as the whole suite uses it: no deadlines, since machines are shared; HYPOTHESIS_PROFILE=thorough tries more."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
