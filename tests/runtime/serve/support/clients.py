"""Ask a server with tritonclient or kserve, in an environment that has them: `python clients.py WHICH PORT`.

Prints what came back as one JSON object. The server is `doubler`, for texts `echo`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np

X = np.arange(8, dtype=np.float32).reshape(2, 4)
N = np.array(3, np.int64)
TEXTS = ["a", "Hünd", ""]


def ask_triton(port: int) -> dict[str, Any]:
    """Every call of tritonclient.http that the server has."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=4)
    got: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("doubler"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("doubler", "7"),
    }
    for binary in (True, False):
        for packing in (None, "gzip", "deflate"):
            inputs = [triton.InferInput("x", list(X.shape), "FP32"), triton.InferInput("n", [], "INT64")]
            for each, array in zip(inputs, (X, N), strict=True):
                each.set_data_from_numpy(array, binary_data=binary)
            outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("y", "m")]
            options = {"request_id": "a", "request_compression_algorithm": packing}
            options["response_compression_algorithm"] = packing
            answer = client.infer("doubler", inputs, outputs=outputs, **options)
            later = client.async_infer("doubler", inputs, outputs=outputs, **options).get_result()
            for each in (answer, later):
                got.setdefault("infer", []).append([each.as_numpy("y").tolist(), each.as_numpy("m").tolist()])
    try:
        client.infer("doubler", inputs[:1])
    except triton.InferenceServerException as error:
        got["refused"] = [error.status(), error.message()]
    got["statistics"] = client.get_inference_statistics("doubler", "7")
    got["all_statistics"] = client.get_inference_statistics()
    client.close()
    return got


def ask_triton_texts(port: int) -> dict[str, Any]:
    """Texts, which the server gives back, as tritonclient sends and reads them."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    got: dict[str, Any] = {"texts": []}
    for binary in (True, False):
        texts = triton.InferInput("s", [len(TEXTS)], "BYTES")
        texts.set_data_from_numpy(np.array([text.encode() for text in TEXTS], object), binary_data=binary)
        answer = client.infer("echo", [texts], outputs=[triton.InferRequestedOutput("t", binary_data=binary)])
        found = answer.as_numpy("t").tolist()
        got["texts"].append([item.decode() if isinstance(item, bytes) else item for item in found])
    client.close()
    return got


async def ask_kserve(port: int) -> dict[str, Any]:
    """Every call of kserve's client that has to do with one model."""
    import httpx
    from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig

    base = f"http://127.0.0.1:{port}"
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1, timeout=20))
    got: dict[str, Any] = {
        "live": await client.is_server_live(base),
        "ready": await client.is_server_ready(base),
        "model_ready": await client.is_model_ready(base, "doubler"),
    }
    for binary in (True, False):
        inputs = [InferInput("x", list(X.shape), "FP32"), InferInput("n", [], "INT64")]
        for each, array in zip(inputs, (X, N), strict=True):
            each.set_data_from_numpy(array, binary_data=binary)
        asked = InferRequest("doubler", inputs, parameters={"binary_data_output": binary})
        answer = await client.infer(base, asked, model_name="doubler")
        outputs: list[InferOutput] = answer.outputs
        got.setdefault("infer", []).append([each.as_numpy().tolist() for each in outputs])
    try:
        await client.infer(base, InferRequest("doubler", inputs[:1]), model_name="doubler")
    except httpx.HTTPStatusError as error:
        got["refused"] = [str(error.response.status_code), error.response.json()["error"]]
    await client.close()
    return got


if __name__ == "__main__":
    which, port = sys.argv[1], int(sys.argv[2])
    ways = {"tritonclient": ask_triton, "texts": ask_triton_texts, "kserve": lambda port: asyncio.run(ask_kserve(port))}
    print(json.dumps(ways[which](port)))
