"""A small language in which code for vectors is generated: `e.fma(x, x, -s) * 0.5` emits LLVM instructions.

Generators receive an `Emit`, which knows the scalar type, and `Value`s, which overload the operators. `lanes.intrinsic`
makes functions of them that numba code can call.
"""

import contextlib

import numpy as np
from llvmlite import ir

from mlp_cli.kernels.layout import lane_count

INT64 = ir.IntType(64)
INT32 = ir.IntType(32)
FLOATS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


class Value:
    """An LLVM value (vector or scalar) with operators. Numbers on the other side become constants of its type."""

    def __init__(self, emit: "Emit", llvm):
        self.e, self.llvm = emit, llvm

    @property
    def type(self):
        """The LLVM type."""
        return self.llvm.type

    def _is_float(self):
        element = self.type.element if isinstance(self.type, ir.VectorType) else self.type
        return isinstance(element, ir.FloatType | ir.DoubleType)

    def _binary(self, other, of_floats, of_ints, swap=False):
        a, b = self.llvm, self.e.constant(other, self.type).llvm
        if swap:
            a, b = b, a
        return Value(self.e, getattr(self.e.builder, of_floats if self._is_float() else of_ints)(a, b))

    def __add__(self, other):
        return self._binary(other, "fadd", "add")

    def __radd__(self, other):
        return self._binary(other, "fadd", "add", swap=True)

    def __sub__(self, other):
        return self._binary(other, "fsub", "sub")

    def __rsub__(self, other):
        return self._binary(other, "fsub", "sub", swap=True)

    def __mul__(self, other):
        return self._binary(other, "fmul", "mul")

    def __rmul__(self, other):
        return self._binary(other, "fmul", "mul", swap=True)

    def __truediv__(self, other):
        return self._binary(other, "fdiv", None)

    def __rtruediv__(self, other):
        return self._binary(other, "fdiv", None, swap=True)

    def __neg__(self):
        return Value(self.e, self.e.builder.fneg(self.llvm))

    def __and__(self, other):
        return self._binary(other, None, "and_")

    def __or__(self, other):
        return self._binary(other, None, "or_")

    def __xor__(self, other):
        return self._binary(other, None, "xor")

    def __lshift__(self, other):
        return self._binary(other, None, "shl")

    def __rshift__(self, other):
        """A logical shift: zeros come in."""
        return self._binary(other, None, "lshr")

    def shift_signed(self, other):
        """An arithmetic shift to the right: copies of the sign come in."""
        return self._binary(other, None, "ashr")

    def _compare(self, operator, other):
        b = self.e.constant(other, self.type).llvm
        compare = self.e.builder.fcmp_ordered if self._is_float() else self.e.builder.icmp_signed
        return Value(self.e, compare(operator, self.llvm, b))

    # Comparisons of floats are false when either side is NaN.
    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def equals(self, other):
        """Lane by lane a == b: `==` itself would be misleading for generated code."""
        return self._compare("==", other)

    def below_unsigned(self, other):
        """Lane by lane a < b as unsigned integers."""
        b = self.e.constant(other, self.type).llvm
        return Value(self.e, self.e.builder.icmp_unsigned("<", self.llvm, b))

    def is_nan(self):
        """Lane by lane whether this is NaN."""
        return Value(self.e, self.e.builder.fcmp_unordered("uno", self.llvm, self.llvm))


class Emit:
    """Emits LLVM code for vectors of one scalar type, `float32` or `float64`."""

    def __init__(self, builder, scalar: str):
        self.builder = builder
        self.bits = 8 * np.dtype(scalar).itemsize
        self.lanes = lane_count(scalar)
        self.float = FLOATS[scalar]
        self.int = ir.IntType(self.bits)
        self.vector = ir.VectorType(self.float, self.lanes)
        self.int_vector = ir.VectorType(self.int, self.lanes)

    # --- constants and conversions -------------------------------------------------------------------------

    def constant(self, x, of_type=None) -> Value:
        """A Python number as a constant of `of_type` (default: a vector with the number in every lane)."""
        if isinstance(x, Value):
            return x
        of_type = of_type or self.vector
        element = of_type.element if isinstance(of_type, ir.VectorType) else of_type
        if isinstance(element, ir.FloatType):
            x = float(np.float32(x))
        elif isinstance(element, ir.DoubleType):
            x = float(x)
        else:
            x = int(x) & ((1 << element.width) - 1)
        if isinstance(of_type, ir.VectorType):
            return Value(self, ir.Constant(of_type, [x] * of_type.count))
        return Value(self, ir.Constant(of_type, x))

    def constants(self, xs, of_type=None) -> Value:
        """A vector constant with one number a lane."""
        of_type = of_type or self.vector
        return Value(self, ir.Constant(of_type, [self.constant(x, of_type.element).llvm.constant for x in xs]))

    def lane_numbers(self) -> Value:
        """0, 1, 2, … as integers."""
        return Value(self, ir.Constant(self.int_vector, list(range(self.lanes))))

    def splat(self, x: Value) -> Value:
        """A scalar in every lane."""
        of_type = ir.VectorType(x.type, self.lanes)
        empty = ir.Constant(of_type, ir.Undefined)
        first = self.builder.insert_element(empty, x.llvm, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, self.lanes), None)
        return Value(self, self.builder.shuffle_vector(first, empty, zeros))

    def splat_double(self, x: Value) -> Value:
        """A float64 scalar, rounded to the lanes' type, in every lane."""
        return self.splat(self.from_double(x))

    def splat_int(self, x: Value) -> Value:
        """An int64 scalar, cut to the lanes' width, in every lane."""
        return self.splat(Value(self, self.builder.trunc(x.llvm, self.int)) if self.bits < 64 else x)

    def from_double(self, x: Value) -> Value:
        """A float64 scalar, rounded to the lanes' type."""
        return Value(self, self.builder.fptrunc(x.llvm, self.float)) if self.bits < 64 else x

    def to_double(self, x: Value) -> Value:
        """A scalar as float64."""
        return Value(self, self.builder.fpext(x.llvm, ir.DoubleType())) if self.bits < 64 else x

    def double_of_int(self, x: Value) -> Value:
        """An int64 scalar as float64."""
        return Value(self, self.builder.sitofp(x.llvm, ir.DoubleType()))

    def as_int(self, x: Value) -> Value:
        """The same bits as integers."""
        of_type = self.int_vector if isinstance(x.type, ir.VectorType) else self.int
        return Value(self, self.builder.bitcast(x.llvm, of_type))

    def as_float(self, x: Value) -> Value:
        """The same bits as floats."""
        of_type = self.vector if isinstance(x.type, ir.VectorType) else self.float
        return Value(self, self.builder.bitcast(x.llvm, of_type))

    def int_to_float(self, x: Value) -> Value:
        """Signed integers, lane by lane, as floats of the same width (rounded to nearest)."""
        return Value(self, self.builder.sitofp(x.llvm, self.vector))

    def float_of_wide(self, x: Value) -> Value:
        """64-bit signed integers as the lanes' floats (rounded to nearest)."""
        return Value(self, self.builder.sitofp(x.llvm, self.vector))

    # --- arithmetic ----------------------------------------------------------------------------------------

    def _call(self, name, *values):
        of_type = values[0].type
        suffix = f"v{self.lanes}f{self.bits}" if isinstance(of_type, ir.VectorType) else f"f{self.bits}"
        return Value(self, self.call(f"llvm.{name}.{suffix}", of_type, [v.llvm for v in values]))

    def call(self, name: str, result, arguments):
        """Call a function of LLVM or of the C library: type of its result, LLVM values of its arguments."""
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(result, [value.type for value in arguments]), name)
        return self.builder.call(function, arguments)

    def fma(self, a, b, c) -> Value:
        """a b + c, rounded once."""
        model = next(v for v in (a, b, c) if isinstance(v, Value))
        return self._call("fma", *(self.constant(v, model.type) for v in (a, b, c)))

    def polynomial(self, x: Value, coefficients) -> Value:
        """Horner's rule in fused steps; the coefficient of the highest power comes first."""
        result = self.constant(coefficients[0], x.type)
        for c in coefficients[1:]:
            result = self.fma(result, x, c)
        return result

    def sqrt(self, x: Value) -> Value:
        """The square root, correctly rounded."""
        return self._call("sqrt", x)

    def abs(self, x: Value) -> Value:
        """|x|."""
        return self._call("fabs", x)

    def copysign(self, magnitude: Value, sign: Value) -> Value:
        """The size of the one with the sign of the other."""
        return self._call("copysign", magnitude, sign)

    def where(self, condition: Value, a, b) -> Value:
        """a where the condition holds, else b, lane by lane."""
        model = a if isinstance(a, Value) else b
        if not isinstance(model, Value):
            a = model = self.constant(a)
        a, b = self.constant(a, model.type), self.constant(b, model.type)
        return Value(self, self.builder.select(condition.llvm, a.llvm, b.llvm))

    def maximum(self, a: Value, b) -> Value:
        """a where a > b, else b: a NaN in a gives b, a NaN in b gives NaN."""
        return self.where(a > b, a, b)

    def minimum(self, a: Value, b) -> Value:
        """a where a < b, else b."""
        return self.where(a < b, a, b)

    def both(self, p: Value, q: Value) -> Value:
        """p and q."""
        return Value(self, self.builder.and_(p.llvm, q.llvm))

    def either(self, p: Value, q: Value) -> Value:
        """p or q."""
        return Value(self, self.builder.or_(p.llvm, q.llvm))

    def first_lanes(self, n: Value) -> Value:
        """A mask of the first n lanes (n an int64 scalar)."""
        return self.lane_numbers() < self.splat_int(n)

    def shuffle(self, a: Value, b: Value, lanes) -> Value:
        """A vector of the lanes with these numbers, counted through a and then b."""
        pattern = ir.Constant(ir.VectorType(INT32, len(lanes)), list(lanes))
        return Value(self, self.builder.shuffle_vector(a.llvm, b.llvm, pattern))

    def reduce(self, x: Value, combine) -> Value:
        """Combine all lanes in one tree (lanes 8 apart, then 4, 2, 1); every lane of the result holds it."""
        distance = self.lanes // 2
        while distance:
            x = combine(x, self.shuffle(x, x, [lane ^ distance for lane in range(self.lanes)]))
            distance //= 2
        return x

    def lane(self, x: Value, i: int) -> Value:
        """One lane, as a scalar."""
        return Value(self, self.builder.extract_element(x.llvm, ir.Constant(INT32, i)))

    # --- memory and control --------------------------------------------------------------------------------

    def at(self, pointer: Value, n) -> Value:
        """The address n elements on."""
        n = self.constant(n, INT64) if not isinstance(n, Value) else n
        return Value(self, self.builder.gep(pointer.llvm, [n.llvm]))

    def load(self, pointer: Value) -> Value:
        """A vector from memory that is aligned to its elements only."""
        p = self.builder.bitcast(pointer.llvm, self.vector.as_pointer())
        return Value(self, self.builder.load(p, align=self.bits // 8))

    def store(self, pointer: Value, x: Value) -> None:
        """A vector or scalar to memory."""
        p = self.builder.bitcast(pointer.llvm, x.type.as_pointer())
        self.builder.store(x.llvm, p, align=self.bits // 8)

    def store_first(self, pointer: Value, x: Value, n: Value) -> None:
        """Store only the first n lanes; memory beyond them is not touched."""
        place = self.builder.bitcast(pointer.llvm, x.type.as_pointer())
        mask = self.first_lanes(n).llvm
        align = ir.Constant(INT32, self.bits // 8)
        self.call(f"llvm.masked.store.v{self.lanes}f{self.bits}.p0", ir.VoidType(), [x.llvm, place, align, mask])

    def load_first(self, pointer: Value, n: Value) -> Value:
        """The first n lanes from memory, zeros in the others; memory beyond them is not touched."""
        place = self.builder.bitcast(pointer.llvm, self.vector.as_pointer())
        mask = self.first_lanes(n).llvm
        align = ir.Constant(INT32, self.bits // 8)
        zeros = self.constant(0.0).llvm
        name = f"llvm.masked.load.v{self.lanes}f{self.bits}.p0"
        return Value(self, self.call(name, self.vector, [place, align, mask, zeros]))

    def load_scalar(self, pointer: Value) -> Value:
        """One element."""
        return Value(self, self.builder.load(pointer.llvm, align=self.bits // 8))

    def variable(self, initial: Value) -> "Variable":
        """A value that changes in a loop."""
        return Variable(self, initial)

    @contextlib.contextmanager
    def loop(self, n):
        """`with e.loop(n) as i:` runs its body for i = 0 … n-1."""
        builder = self.builder
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        before = builder.basic_block
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(INT64)
        i.add_incoming(INT64(0), before)
        builder.cbranch((Value(self, i) < n).llvm, body, after)
        builder.position_at_end(body)
        yield Value(self, i)
        i.add_incoming(builder.add(i, INT64(1), flags=["nsw"]), builder.basic_block)
        builder.branch(head)
        builder.position_at_end(after)

    def repeat(self, n: Value, unroll: int, body) -> None:
        """Run body(i) for i = 0 … n-1, `unroll` of them on each trip. (LLVM is told not to unroll loops by itself.)"""
        shift = unroll.bit_length() - 1
        with self.loop(n >> shift) as trip:
            for i in range(unroll):
                body((trip << shift) + i)
        with self.loop(n & (unroll - 1)) as i:
            body((n >> shift << shift) + i)

    def in_fours(self, n: Value):
        """`for first, here in e.in_fours(n): with here: …` for lanes first … first + 3, left out where there are none
        of the first n among them: code for lanes by number that does not do them all."""
        for first in range(0, self.lanes, 4):
            yield first, self.builder.if_then((n > first).llvm)

    def switch(self, code: Value, bodies: dict) -> None:
        """Run the body of the matching case; bodies maps integers to functions without arguments."""
        builder = self.builder
        after = builder.append_basic_block("after")
        switch = builder.switch(code.llvm, after)
        for number, body in bodies.items():
            block = builder.append_basic_block(f"case{number}")
            switch.add_case(ir.Constant(INT64, number), block)
            builder.position_at_end(block)
            body()
            builder.branch(after)
        builder.position_at_end(after)


class Variable:
    """A stack slot that LLVM promotes to a register: a value that changes in a loop."""

    def __init__(self, emit, initial: Value):
        self.e = emit
        with emit.builder.goto_entry_block():
            self.slot = emit.builder.alloca(initial.type)
        self.set(initial)

    def get(self) -> Value:
        """The value now."""
        return Value(self.e, self.e.builder.load(self.slot))

    def set(self, x: Value) -> None:
        """Change it."""
        self.e.builder.store(x.llvm, self.slot)
