"""Calls about decisions, files, overrides and trials: who may, what is asked, the answer."""
