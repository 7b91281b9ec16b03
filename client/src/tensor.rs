//! Tensors of a batch: what they are, where they lie, and typed views on them.

use crate::Error;
use half::{bf16, f16, slice::HalfBitsSliceExt};
use mixfeed_proto as v1;
use std::{fmt, ops::Range};

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian and are viewed in place");

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum Dtype {
    U8,
    F16,
    Bf16,
    F32,
    F64,
    I32,
    I64,
    U32,
    U64,
    U16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }

    /// Lower-case name, "u8", "bf16".
    pub fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
            Dtype::U32 => "u32",
            Dtype::U64 => "u64",
            Dtype::U16 => "u16",
        }
    }

    pub(crate) fn from_wire(value: i32) -> Option<Self> {
        match v1::Dtype::try_from(value).ok()? {
            v1::Dtype::Unspecified => None,
            v1::Dtype::U8 => Some(Dtype::U8),
            v1::Dtype::F16 => Some(Dtype::F16),
            v1::Dtype::Bf16 => Some(Dtype::Bf16),
            v1::Dtype::F32 => Some(Dtype::F32),
            v1::Dtype::F64 => Some(Dtype::F64),
            v1::Dtype::I32 => Some(Dtype::I32),
            v1::Dtype::I64 => Some(Dtype::I64),
            v1::Dtype::U32 => Some(Dtype::U32),
            v1::Dtype::U64 => Some(Dtype::U64),
            v1::Dtype::U16 => Some(Dtype::U16),
        }
    }
}

/// Where a tensor lies in its batch's memory.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
    pub(crate) offsets: Option<String>,
}

/// A tensor in its batch's memory; its first byte lies on a 64-byte border.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    /// Name, `image`.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Row-major shape, outermost axis first.
    pub shape: &'a [usize],
    /// Name of the tensor of n + 1 offsets into the outermost axis, for ragged values.
    pub offsets: Option<&'a str>,
    /// Little-endian elements.
    pub bytes: &'a [u8],
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {:?}", self.name, self.dtype.name(), self.shape)
    }
}

macro_rules! typed {
    ($($method:ident $type:ty, $dtype:path;)+) => {$(
        #[doc = concat!("Elements of a `", stringify!($type), "` tensor, without a copy.")]
        pub fn $method(&self) -> Result<&'a [$type], Error> {
            self.check($dtype)?;
            bytemuck::try_cast_slice(self.bytes).map_err(|e| self.is_not(&format!("aligned: {e}")))
        }
    )+};
}

impl<'a> TensorView<'a> {
    typed! {
        as_u8 u8, Dtype::U8;
        as_u16 u16, Dtype::U16;
        as_u32 u32, Dtype::U32;
        as_u64 u64, Dtype::U64;
        as_i32 i32, Dtype::I32;
        as_i64 i64, Dtype::I64;
        as_f32 f32, Dtype::F32;
        as_f64 f64, Dtype::F64;
    }

    /// Elements of an `f16` tensor, without a copy.
    pub fn as_f16(&self) -> Result<&'a [f16], Error> {
        self.check(Dtype::F16).and_then(|()| self.halves()).map(HalfBitsSliceExt::reinterpret_cast)
    }

    /// Elements of a `bf16` tensor, without a copy.
    pub fn as_bf16(&self) -> Result<&'a [bf16], Error> {
        self.check(Dtype::Bf16).and_then(|()| self.halves()).map(HalfBitsSliceExt::reinterpret_cast)
    }

    fn halves(&self) -> Result<&'a [u16], Error> {
        bytemuck::try_cast_slice(self.bytes).map_err(|e| self.is_not(&format!("aligned: {e}")))
    }

    fn check(&self, wanted: Dtype) -> Result<(), Error> {
        if self.dtype == wanted { Ok(()) } else { Err(self.is_not(wanted.name())) }
    }

    pub(crate) fn is_not(&self, expected: &str) -> Error {
        Error::Tensor {
            tensor: self.name.into(),
            found: format!("{} {:?}", self.dtype.name(), self.shape),
            expected: expected.into(),
        }
    }
}
