"""Profiles: files that describe how the documents of a job queue hold jobs."""

from jobmon.profiles.loader import ProfileFile, load_profile, parse_file, shipped_profiles
from jobmon.profiles.schema import FileError

__all__ = ["FileError", "ProfileFile", "load_profile", "parse_file", "shipped_profiles"]
