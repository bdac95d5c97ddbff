"""The endpoint that people write: FastAPI, torchvision's transforms and an eager PyTorch module.

`def`, not `async def`: Starlette runs each request on a thread of its pool, as FastAPI's documentation advises for work
that blocks. BENCH_THREADS is what torch.set_num_threads gets; without it torch takes its default.
"""

from __future__ import annotations

import io
import os

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

import headstart as hs

if threads := os.environ.get("BENCH_THREADS"):
    torch.set_num_threads(int(threads))
model = hs.load(os.environ["BENCH_MODEL"], precision="fp32")
classes, module = model.classes, model.to_torch().eval()  # ordinary layers of torch.nn, eager, in fp32
transform = transforms.Compose(
    [
        transforms.Resize(round(model.spec.size / model.spec.crop), transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(model.spec.size),
        transforms.ToTensor(),  # the module normalises
    ]
)
app = FastAPI()


@app.post("/predict")
def predict(image: UploadFile) -> dict[str, object]:
    """Label and probability of a photo."""
    photo = Image.open(io.BytesIO(image.file.read())).convert("RGB")
    with torch.inference_mode():
        probabilities = module(transform(photo)[None]).softmax(1)[0]
    best = int(probabilities.argmax())
    return {"label": classes[best], "probability": float(probabilities[best])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), log_level="warning")
