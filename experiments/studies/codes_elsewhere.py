"""Codes of Associated Learning by how they are made, where the classes are not those of easy images.

    python -m localgrad data prepare wordnet_gloss
    python -m experiments.studies.codes_elsewhere --rows=bilstm  # one CPU core, half an hour
    python -m experiments.studies.codes_elsewhere --rows=noise   # a quarter of an hour
    python -m experiments.studies.codes_elsewhere --rows=resnet20

Definitions of words are told apart by a BiLSTM and a Transformer of the profile `iclr_head`, as in `text_accuracy`;
Fashion-MNIST by a residual network of four blocks at half its width, and by an MLP of which six labels of ten are drawn
anew.  Codes are learnt beside the features (`learned`), before them (`first`), or fixed at an amplitude.  Expect codes
made before to gain where the features would wait for them, with `neco` on images; on texts those of `iclr_head` come in
time, and it is small ones that gain, at the first exit most.  The epoch is chosen on validation, and every exit is that
epoch's.
"""

from typing import Any

from absl import app, flags

from experiments import tables
from experiments.studies import text_rows

text_rows.define_flags("codes_elsewhere")
FLAGS = flags.FLAGS

LEARNED, FIRST = {"codes": "learned"}, {"codes": "first"}
FASHION: dict[str, Any] = {
    "dataset": "fashion_mnist", "method": "al", "batch_size": 128, "learning_rate": 1e-3, "schedule": "cosine",
}  # fmt: skip
RESIDUAL: dict[str, Any] = {
    "net": "resnet20", "net_options": ("width_factor=0.5",), "blocks": (4,), "limit": 5_000, "epochs": 8,
}  # fmt: skip
NOISY: dict[str, Any] = {"net": "mlp", "widths": (256,) * 4, "limit": 6_000, "epochs": 20, "label_noise": 0.6}


def fixed(amplitude: float) -> dict[str, Any]:
    return {"codes": "fixed", "method_options": (f"code_amplitude={amplitude}",)}


def rows() -> dict[str, dict[str, Any]]:
    """The configuration of every row."""
    of_texts: dict[str, dict[str, Any]] = {
        "learned": LEARNED,
        "first": FIRST,
        "first then learning": {**FIRST, "method_options": ("codes_learn_on=True",)},
        **{f"fixed {amplitude}": fixed(amplitude) for amplitude in (0.1, 0.2, 0.6, 0.9)},
    }
    few = ("learned", "first", "fixed 0.2")
    texts = [("bilstm", of_texts), ("transformer", {name: of_texts[name] for name in few})]
    images = [("resnet20", RESIDUAL), ("noise", NOISY)]
    return {
        f"{net} {name}": text_rows.row("wordnet_gloss", net, "al", **form)
        for net, forms in texts
        for name, form in forms.items()
    } | {
        f"{net} {profile} {form['codes']}": {**FASHION, **fields, "profile": profile, **form}
        for net, fields in images
        for profile in ("neco", "iclr_head")
        for form in (LEARNED, FIRST)
    }


def main(argv: list[str]) -> int:
    return tables.run_rows(
        "codes_elsewhere",
        "Codes of Associated Learning by how they are made, on wordnet_gloss and Fashion-MNIST; the epoch is that of "
        "the best validation accuracy",
        rows(),
        {**text_rows.SMOKE, "net": "bilstm", "widths": (8, 8), "net_options": ("embed_width=8",), "blocks": None},
        {
            "test %": lambda summary: tables.spread(summary["best_test_accuracy"]),
            "by exit": lambda summary: ", ".join(map(tables.spread, summary["best_exit_accuracy"])),
            "best epoch": lambda summary: tables.spread(summary["best_epoch"], 1),
            "at the end, test %": lambda summary: tables.spread(summary["test_accuracy"]),
        },
    )


if __name__ == "__main__":
    app.run(main)
