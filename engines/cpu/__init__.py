"""The CPU engine: Triton's Python backend around OpenVINO GenAI's continuous batching.

It takes and gives the tensors of TensorRT-LLM 1.2.1's `tensorrt_llm` model, so that what speaks
to a GPU engine speaks to this one. Two processes: the Python backend's stub (`stub/`) checks
requests and sends answers; its child (`process/`) owns the pipeline, whose `step()` holds the
interpreter lock for as long as the whole batch takes. They speak in `messages.py` over
`transport.py`.
"""
