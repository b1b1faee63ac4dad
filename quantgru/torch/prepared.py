"""A model that is trained with the weights that its integers will have, and its way there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from quantgru.errors import ConfigError, DataError, ModelError
from quantgru.importers import load
from quantgru.int_model import IntBidirectional, IntDense, IntEmbedding, IntGru, IntLayer, IntModel, output_bits
from quantgru.int_model.row_parameters import ROW_PARAMETERS, RowParameters, RowParametersName
from quantgru.model import Bidirectional, Dense, Embedding, FloatModel, Gru
from quantgru.quantizer import quantize
from quantgru.quantizer.layers import embedding_scale
from quantgru.quantizer.model import with_layers
from quantgru.quantizer.widths import DEFAULT_BITS, WeightBits, Widths
from quantgru.sequences import Sequences, SequencesLike, as_sequences, with_token_axis
from quantgru.simulator.inputs import to_raw
from quantgru.structure import Reverse
from quantgru.torch.integers import run_integers
from quantgru.torch.layers import BidirectionalLayer, DenseLayer, EmbeddingLayer, GruLayer, ReverseLayer
from quantgru.torch.rows import Operands, Rows
from quantgru.torch.steps import Steps, run_layers


class Run(NamedTuple):
    """What a model gives for a batch.

    outputs  [sequences, steps, outputs], zero in padding; or [sequences, outputs] of a model with a last-step head
    states   h of each GRU layer, [sequences, steps, units], zero in padding; steps in the order in which it read them
    """

    outputs: Tensor
    states: tuple[Tensor, ...]


class Prepared(nn.Module):
    """A model in fine-tuning; `prepare` makes one.

    In training mode, real numbers with the weights of the integer model; gradients pass through their rounding. In
    evaluation mode, the integers themselves, as real numbers: equal to `qg.simulate` of what `convert` makes of it.

    start  the integer model that it began as, whose formats and row scales it keeps
    """

    def __init__(
        self, model: FloatModel, start: IntModel, widths: Widths, operands: Operands, parameters: RowParameters
    ) -> None:
        super().__init__()
        self.start = start
        self._token_numbers = model.embedding is not None
        self.layers = nn.ModuleList(_training_layers(model, start, operands, widths, parameters))
        self.register_buffer("input_scale", torch.tensor(operands.scale))
        self.register_buffer("input_mean", torch.tensor(operands.mean))
        self.register_buffer("formats", torch.tensor(self._formats()))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Outputs for x [sequences, steps, inputs], or token numbers [sequences, steps], as `run` gives them.

        lengths  integers [sequences], 1 ... steps: what is beyond is padding

        Raises DataError; ModelError in evaluation mode, for parameters that no integer model can have.
        """
        return self.run(x, lengths).outputs

    def run(self, x: Tensor, lengths: Tensor | None = None) -> Run:
        """The same with the states."""
        if self.training and isinstance(x, Tensor) and x.requires_grad:
            raise ConfigError(
                "prepared module: x requires gradients, and none pass through quantized inputs; put the layers before "
                "it into the module that is prepared, or give x.detach()"
            )
        raw = self._raw(x, lengths)
        if not self.training:
            with torch.no_grad():
                return self._run_integers(raw)
        values = raw.values if self._token_numbers else (raw.values - self.input_mean) * self.input_scale
        real = Steps(values.to(next(self.parameters()).dtype), raw.lengths)
        return Run(*run_layers(self.start, self.start.last_step, list(self.layers), real))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `to`, `half` and others do: types that do not hold scales exactly are refused."""
        dtype = fn(torch.zeros(1, dtype=torch.float64)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise ConfigError(
                f"prepared module: {dtype} does not hold the scales of its weights, allowed are float32 and float64; "
                "for a faster training use torch.autocast"
            )
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """A part of `load_state_dict`: parameters of other formats would stand for another model, and are refused."""
        found = state_dict.get(f"{prefix}formats")
        if found is not None and found.tolist() != self._formats():
            raise ModelError(
                f"prepared module: a state dict of other formats or weight bits than those of {self.start.name!r}; "
                "prepare the module with the arguments of the one that was saved, the calibration data too"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _formats(self) -> list[int]:
        """Fraction bits of the inputs, of each state and each dense layer; bits of the codes of each matrix."""
        states = [gru.state_fraction_bits for gru in self.start.grus]
        dense = [layer.output_fraction_bits for layer in self.start.dense]
        codes = [bits for rows in self.modules() if isinstance(rows, Rows) for bits in rows.bits]
        return [*self.start.input_fraction_bits.tolist(), *states, *dense, *codes]

    def integers(self) -> tuple[IntLayer, ...]:
        """The layers of the integer model. Raises ModelError."""
        for name, parameter in self.named_parameters():
            if not parameter.isfinite().all():
                raise ModelError(
                    f"convert: {name} holds values that are not finite: training diverged; lower the learning rate, or "
                    "clip gradients"
                )
        return tuple(layer.integers() for layer in self.layers)

    def _run_integers(self, raw: Steps) -> Run:
        model = replace(self.start, layers=self.integers())  # which proves that nothing overflows
        outputs, states = run_integers(model, replace(raw, values=raw.values.long()))
        dtype = next(self.parameters()).dtype
        real_states = [_real(h, gru.state_fraction_bits, dtype) for h, gru in zip(states, model.grus, strict=True)]
        return Run(_real(outputs, model.output_fraction_bits, dtype), tuple(real_states))

    def _raw(self, x: Any, lengths: Any) -> Steps:
        """Raw inputs in float64, checked, on the device of the parameters."""
        sequences = _sequences(self.start, x, lengths)
        raw, _ = to_raw(self.start, sequences)
        device = self.input_scale.device
        return Steps(
            torch.tensor(raw, dtype=torch.float64, device=device), torch.tensor(sequences.lengths, device=device)
        )


def _sequences(model: IntModel, x: Any, lengths: Any) -> Sequences:
    """A batch as other parts of quantgru take it. Raises DataError."""
    if isinstance(x, nn.utils.rnn.PackedSequence):
        raise DataError(
            "input: a PackedSequence, expected what pad_packed_sequence(x, batch_first=True) gives: x, lengths"
        )
    if isinstance(x, Tensor):
        x = x.detach().cpu().double().numpy()
    sequences = as_sequences(x if model.embedding is None else with_token_axis(x), n_features=model.n_inputs)
    if lengths is None:
        return sequences
    found = np.asarray(lengths.cpu() if isinstance(lengths, Tensor) else lengths)
    if found.dtype.kind not in "iu":
        raise DataError(f"input: lengths of type {found.dtype}, expected integers [sequences]")
    return as_sequences(Sequences(sequences.values, found.astype(np.int64)))


def _real(raw: Tensor, fraction_bits: int, dtype: torch.dtype) -> Tensor:
    """Exactly, in any type that holds 16 bits."""
    return (raw.double() * 2.0**-fraction_bits).to(dtype)


def _input_operands(model: IntModel, mean: npt.ArrayLike | None, scale: npt.ArrayLike | None) -> Operands:
    """What raw inputs are to a float model that is trained on (x - mean) / scale, both [inputs] or one number."""
    factors = np.exp2(model.input_fraction_bits.astype(np.float64))
    means = np.zeros(model.n_inputs) if mean is None else np.broadcast_to(mean, model.n_inputs)
    return Operands(1 / factors / np.asarray(1.0 if scale is None else scale), means * factors)


def _training_layers(
    model: FloatModel, start: IntModel, operands: Operands, widths: Widths, parameters: RowParameters
) -> Iterator[nn.Module]:
    """Of each layer of both models; `operands` are the inputs."""
    bits = start.input_fraction_bits.astype(np.int64)
    for layer, integers in zip(model.layers, start.layers, strict=True):
        match layer, integers:
            case Gru(), IntGru():
                yield GruLayer(layer, integers, operands, widths, parameters)
            case Bidirectional(), IntBidirectional():
                yield BidirectionalLayer(layer, integers, operands, widths, parameters)
            case Dense(), IntDense():
                yield DenseLayer(layer, integers, operands, widths, parameters)
            case Embedding(), IntEmbedding():
                yield EmbeddingLayer(layer, integers)
            case Reverse(), Reverse():
                yield ReverseLayer(layer)
                continue  # operands as before
        bits = output_bits(integers, bits)
        operands = Operands.of_format(bits)
        if isinstance(layer, Embedding):
            operands = Operands(embedding_scale(layer) * operands.scale, operands.mean)


def prepare(
    module: nn.Module | FloatModel,
    calibration: SequencesLike | Sequences,
    *,
    weight_bits: WeightBits = DEFAULT_BITS,
    row_parameters: RowParametersName = "exact",
    refine: int = 0,
    mean: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    name: str | None = None,
) -> Prepared:
    """A module to be fine-tuned, which begins as the integer model that `qg.quantize` makes with the same arguments.

    `module` is what `qg.load` reads, or a FloatModel; it is left alone. Formats and the scales of rows stay as they are
    chosen here: trained ones were found to gain nothing. Sequences start from the model's own initial states.

    Raises ModelError, DataError, ConfigError as `qg.load` and `qg.quantize` do, and ModelError for a mask value.
    """
    if isinstance(module, Prepared):
        raise ModelError("prepare: a module that is prepared already; give the model that it was made of")
    model = load(module, name=name)
    if model.mask_value is not None:
        raise ModelError(
            f"prepare: model {model.name!r} leaves out steps whose inputs are all {model.mask_value:g}, which is not "
            "supported in fine-tuning; remove the masking layer, and give sequences without these steps, and lengths"
        )
    start = quantize(
        model,
        calibration,
        mean=mean,
        scale=scale,
        weight_bits=weight_bits,
        row_parameters=row_parameters,
        refine=refine,
    )
    operands, parameters = _input_operands(start, mean, scale), ROW_PARAMETERS[row_parameters]
    return Prepared(model, start, Widths(model, weight_bits), operands, parameters)


def convert(prepared: Prepared) -> IntModel:
    """The integer model that `prepared` computes in evaluation mode. Raises ModelError where training has diverged."""
    if not isinstance(prepared, Prepared):
        raise ModelError(
            f"convert: an object of type {type(prepared).__name__}, expected the module that qg.torch.prepare gives"
        )
    int_model = with_layers(prepared.start, prepared.integers())
    return replace(int_model, notes={**int_model.notes, "rounding": "fine-tuned"})
