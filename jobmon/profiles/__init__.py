"""Profiles: files that describe how the documents of a job queue hold jobs."""

from jobmon.profiles.loader import (
    ProfileError,
    ProfileFile,
    load_profile,
    parse_file,
    shipped_profiles,
)

__all__ = ["ProfileError", "ProfileFile", "load_profile", "parse_file", "shipped_profiles"]
