"""Runs on disk: settings, presets, folders, sweeps."""
