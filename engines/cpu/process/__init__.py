"""The process that computes: admission, the pipeline, guided decoding."""
