"""Makes the models beside it: `python -m tests.vectors.exports.make` in the project's folder.

It needs torch 2.13, torchvision 0.29, transformers 5.24 and onnxscript; weights are random.  They are committed because
CI has none of these.
"""

from pathlib import Path

from tests.support.exports import Export, make

HERE = Path(__file__).parent
COMMITTED = (
    Export("bert", "script", "types"),
    Export("bert", "dynamo", "mask"),
    Export("distilbert", "script", "mask"),
    Export("roberta", "script", "ids"),
    Export("gpt2_words", "dynamo", "ids"),
    Export("llama", "dynamo", "mask"),
    Export("vit", "dynamo"),
)

if __name__ == "__main__":
    for export in COMMITTED:
        (HERE / f"{export.name}.onnx").write_bytes(make(export).SerializeToString())
