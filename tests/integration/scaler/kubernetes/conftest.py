"""A cluster's API server, and a client of it."""

import pytest

from services.scaler.targets.kubernetes.client import KubernetesClient
from tests.making.kubernetes import api_server


@pytest.fixture
async def api():
    async with api_server() as api:
        yield api


@pytest.fixture
async def client(api, tmp_path):
    client = KubernetesClient.open(api.kubeconfig(tmp_path))
    yield client
    await client.close()
