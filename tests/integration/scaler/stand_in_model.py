"""A model for tests: waits as many milliseconds as it is told, and counts as engines do."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, _args):
        self.family = pb_utils.MetricFamily(
            name="nv_trt_llm_request_metrics", description="", kind=pb_utils.MetricFamily.GAUGE
        )
        self.active = self.family.Metric(labels={"request_type": "active"})

    def execute(self, requests):
        self.active.set(len(requests))
        responses = []
        for request in requests:
            wait = pb_utils.get_input_tensor_by_name(request, "milliseconds").as_numpy()
            time.sleep(int(wait[0]) / 1000)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("waited", wait)]))
        self.active.set(0)
        return responses
