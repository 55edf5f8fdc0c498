"""Vectors and blocks of them that stay in registers: what compilers do not find by themselves in a loop over pixels.

A `Vector` is LANES neighbouring pixels of one row. A `Block` is FILTERS vectors, the sums of a matrix product for as
many filters, which leave the registers when the last row is in. Each function here is a few machine instructions.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils as untyped_cgutils
from numba.core import types
from numba.extending import intrinsic, models, register_model

cgutils: Any = untyped_cgutils
# let sums be reordered and fused; NaN and infinity keep their meaning
FAST = ("reassoc", "contract", "nsz")
FILTERS = 12
# a block fills the registers: 24 of AVX-512's 32, 12 of AVX2's 16, 24 of NEON's 32
LANES = 32 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8

_Operation = tuple[Any, Callable[..., Any]]  # a signature and what writes its instructions


def _instruction(write: Callable[..., _Operation]) -> Any:
    """A function for kernels, from what gives its signature and writes its instructions."""
    return intrinsic(write)


class _Lanes(types.Type):
    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        super().__init__(name=f"{type(self).__name__}({scalar} x {LANES})")


class Vector(_Lanes):
    """LANES numbers."""


class Block(_Lanes):
    """FILTERS vectors."""


_primitive: Any = models.PrimitiveModel
register_model(Vector)(lambda manager, kind: _primitive(manager, kind, _vector(kind)))
register_model(Block)(lambda manager, kind: _primitive(manager, kind, ir.ArrayType(_vector(kind), FILTERS)))


@_instruction
def load(_: Any, array: Any, row: Any, index: Any, count: Any) -> _Operation:
    """The pixels from `array[row, index]`; of fewer than LANES, the first `count`, and zeros."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, signature.args[0], *values[:3])
        kind = context.get_value_type(signature.return_type)
        address, zero = builder.bitcast(place, kind.as_pointer()), ir.Constant(kind, None)
        found = cgutils.alloca_once_value(builder, zero)
        with builder.if_else(_whole(builder, values[3]), likely=True) as (whole, part):
            with whole:
                builder.store(builder.load(address, align=4), found)
            with part:
                masked = _masked(builder, "load", kind, kind, [address.type, _INT, _mask_type(), kind])
                arguments = [address, ir.Constant(_INT, 4), _first(builder, values[3]), zero]
                builder.store(builder.call(masked, arguments), found)
        return builder.load(found)

    return Vector(array.dtype)(array, types.intp, types.intp, types.intp), write


@_instruction
def store(_: Any, vector: Any, array: Any, row: Any, index: Any, count: Any) -> _Operation:
    """Put the pixels at `array[row, index]`; of fewer than LANES, the first `count`."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector, *where, count = values
        _put(builder, [(vector, _place(context, builder, signature.args[1], *where))], count)
        return context.get_dummy_value()

    return types.none(vector, array, types.intp, types.intp, types.intp), write


@_instruction
def store_block(_: Any, block: Any, array: Any, row: Any, index: Any, count: Any) -> _Operation:
    """Put a block's vectors below each other at `array[row, index]`, as `store` does."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        block, array, row, index, count = values
        rows = [builder.add(row, ir.Constant(row.type, k)) for k in range(FILTERS)]
        places = [_place(context, builder, signature.args[1], array, r, index) for r in rows]
        _put(builder, [(builder.extract_value(block, k), places[k]) for k in range(FILTERS)], count)
        return context.get_dummy_value()

    return types.none(block, array, types.intp, types.intp, types.intp), write


@_instruction
def zeros(_: Any, array: Any) -> _Operation:
    """A block of zeros of this array's type."""
    return Block(array.dtype)(array), _write_zeros


@_instruction
def plus_scaled(_: Any, block: Any, vector: Any, weights: Any, row: Any) -> _Operation:
    """The block with `weights[row, k] * vector` added to each vector k."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        block, vector, weights, row = values
        first = _place(context, builder, signature.args[2], weights, row, ir.Constant(row.type, 0))
        weight = [builder.load(builder.gep(first, [ir.Constant(_INT, k)])) for k in range(FILTERS)]
        return _plus(builder, block, [builder.fmul(_splat(builder, w), vector, flags=FAST) for w in weight])

    return block(block, vector, weights, types.intp), write


@_instruction
def plus_products(_: Any, block: Any, vector: Any, array: Any, row: Any, index: Any) -> _Operation:
    """The block with the pixels from `array[row + k, index]` times `vector` added to each vector k."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        block, vector, array, row, index = values
        products = []
        for k in range(FILTERS):
            place = _place(
                context, builder, signature.args[2], array, builder.add(row, ir.Constant(row.type, k)), index
            )
            other = builder.load(builder.bitcast(place, vector.type.as_pointer()), align=4)
            products.append(builder.fmul(other, vector, flags=FAST))
        return _plus(builder, block, products)

    return block(block, vector, array, types.intp, types.intp), write


@_instruction
def add_totals(_: Any, block: Any, sums: Any, row: Any) -> _Operation:
    """Add to each `sums[row, k]` the sum over the lanes of vector k."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        block, sums, row = values
        start = _place(context, builder, signature.args[1], sums, row, ir.Constant(row.type, 0))
        for k in range(FILTERS):
            place = builder.gep(start, [ir.Constant(_INT, k)])
            found = _total(builder, builder.extract_value(block, k))
            found = context.cast(builder, found, signature.args[0].scalar, signature.args[1].dtype)
            builder.store(builder.fadd(builder.load(place), found), place)
        return context.get_dummy_value()

    return types.none(block, sums, types.intp), write


@_instruction
def relu(_: Any, vector: Any, scale: Any, shift: Any) -> _Operation:
    """`scale * vector + shift` where that is not below zero, else zero; what is not a number stays so."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector, scale, shift = values[0], _splat(builder, values[1]), _splat(builder, values[2])
        found = builder.fadd(builder.fmul(vector, scale, flags=FAST), shift, flags=FAST)
        zero = ir.Constant(vector.type, None)
        return builder.select(builder.fcmp_ordered("<", found, zero, flags=["nsz"]), zero, found)

    return vector(vector, vector.scalar, vector.scalar), write


@_instruction
def first(_: Any, vector: Any, count: Any) -> _Operation:
    """The first `count` lanes, zeros in the others."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(_first(builder, values[1]), values[0], ir.Constant(values[0].type, None))

    return vector(vector, types.intp), write


@_instruction
def where_positive(_: Any, condition: Any, vector: Any) -> _Operation:
    """`vector` where `condition` is above zero, else zero."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        zero = ir.Constant(values[1].type, None)
        return builder.select(builder.fcmp_ordered(">", values[0], zero), values[1], zero)

    return vector(vector, vector), write


@_instruction
def nothing(_: Any, array: Any) -> _Operation:
    """A vector of zeros of this array's type."""
    return Vector(array.dtype)(array), _write_zeros


@_instruction
def plus(_: Any, vector: Any, other: Any) -> _Operation:
    """The sum of two vectors."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fadd(*values, flags=FAST)

    return vector(vector, vector), write


@_instruction
def minus(_: Any, vector: Any, number: Any) -> _Operation:
    """The vector less a number."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fsub(values[0], _splat(builder, values[1]), flags=FAST)

    return vector(vector, vector.scalar), write


@_instruction
def times(_: Any, vector: Any, other: Any) -> _Operation:
    """The vector times another or times a number."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        other = values[1] if isinstance(signature.args[1], Vector) else _splat(builder, values[1])
        return builder.fmul(values[0], other, flags=FAST)

    return vector(vector, other if isinstance(other, Vector) else vector.scalar), write


@_instruction
def total(_: Any, vector: Any) -> _Operation:
    """The sum over the lanes."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _total(builder, values[0])

    return vector.scalar(vector), write


@_instruction
def prefetch(_: Any, array: Any, row: Any, index: Any) -> _Operation:
    """Ask for the pixels from `array[row, index]`, which will be read and written soon; any address will do."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, signature.args[0], *values)
        kind = ir.FunctionType(ir.VoidType(), [place.type, _INT, _INT, _INT])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        line = 64 // (4 if isinstance(_vector(Vector(array.dtype)).element, ir.FloatType) else 8)
        for pixel in range(0, LANES, line):
            at = builder.gep(place, [ir.Constant(_INT, pixel)])
            builder.call(ask, [at, *(ir.Constant(_INT, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp), write


_INT = ir.IntType(32)


def _write_zeros(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    return ir.Constant(context.get_value_type(signature.return_type), None)


def _vector(kind: _Lanes) -> Any:
    return ir.VectorType(ir.FloatType() if kind.scalar == types.float32 else ir.DoubleType(), LANES)


def _mask_type() -> Any:
    return ir.VectorType(ir.IntType(1), LANES)


def _suffix(scalar: Any) -> str:
    return "f32" if isinstance(scalar, ir.FloatType) else "f64"


def _place(context: Any, builder: Any, kind: Any, array: Any, row: Any, index: Any) -> Any:
    """The address of `array[row, index]` of a C-contiguous array or one whose rows are."""
    made = context.make_array(kind)(context, builder, array)
    offset = builder.mul(builder.extract_value(made.strides, 0), row)
    return builder.gep(cgutils.pointer_add(builder, made.data, offset, made.data.type), [index])


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _plus(builder: Any, block: Any, terms: list[Any]) -> Any:
    for k, term in enumerate(terms):
        block = builder.insert_value(block, builder.fadd(builder.extract_value(block, k), term, flags=FAST), k)
    return block


def _total(builder: Any, vector: Any) -> Any:
    scalar = vector.type.element
    kind, name = ir.FunctionType(scalar, [scalar, vector.type]), f"llvm.vector.reduce.fadd.v{LANES}{_suffix(scalar)}"
    reduce = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(reduce, [ir.Constant(scalar, 0.0), vector], fastmath=FAST)


def _whole(builder: Any, count: Any) -> Any:
    return builder.icmp_signed(">=", count, ir.Constant(count.type, LANES))


def _first(builder: Any, count: Any) -> Any:
    """A mask of the first `count` lanes."""
    lanes = ir.Constant(ir.VectorType(_INT, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(count, _INT)))


def _masked(builder: Any, verb: str, result: Any, kind: Any, arguments: list[Any]) -> Any:
    name = f"llvm.masked.{verb}.v{LANES}{_suffix(kind.element)}.p0"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _put(builder: Any, vectors: list[tuple[Any, Any]], count: Any) -> None:
    kind = vectors[0][0].type
    addresses = [(vector, builder.bitcast(place, kind.as_pointer())) for vector, place in vectors]
    with builder.if_else(_whole(builder, count), likely=True) as (whole, part):
        with whole:
            for vector, address in addresses:
                builder.store(vector, address, align=4)
        with part:
            arguments = [kind, addresses[0][1].type, _INT, _mask_type()]
            masked, mask = _masked(builder, "store", ir.VoidType(), kind, arguments), _first(builder, count)
            for vector, address in addresses:
                builder.call(masked, [vector, address, ir.Constant(_INT, 4), mask])
