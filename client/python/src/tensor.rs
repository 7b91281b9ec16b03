//! A tensor of a batch: a view that every library can read without a copy.
#![allow(unsafe_code)] // the buffer protocol is filled in through a pointer

use crate::{batch::Held, dlpack};
use mixfeed_client::Dtype;
use pyo3::{
    exceptions::{PyBufferError, PyIndexError},
    ffi,
    prelude::*,
};
use std::{
    ffi::{CStr, c_int},
    ptr,
    sync::Arc,
};

/// One tensor in its batch's memory; row-major, its first byte on a 64-byte border unless it was sliced.
///
/// Offers the buffer protocol (read-only) and DLPack. The memory lives as long as this object, any view on it, or any
/// other tensor of the batch does, and goes back to the stream's pool when the last of them dies.
#[pyclass(frozen, module = "mixfeed._mixfeed")]
#[derive(Clone, Debug)]
pub struct Tensor {
    held: Arc<Held>,
    /// Index among the batch's tensors.
    index: usize,
    /// Address of the first element.
    address: usize,
    shape: Vec<usize>,
}

/// Shape and strides of a buffer view, which must live as long as it.
struct Extents {
    shape: Vec<ffi::Py_ssize_t>,
    strides: Vec<ffi::Py_ssize_t>,
}

/// Name of an element's type in the struct module; bf16, which it does not know, as its 16 bits.
fn format(dtype: Dtype) -> &'static CStr {
    match dtype {
        Dtype::U8 => c"B",
        Dtype::F16 => c"e",
        Dtype::Bf16 | Dtype::U16 => c"H",
        Dtype::F32 => c"f",
        Dtype::F64 => c"d",
        Dtype::I32 => c"i",
        Dtype::I64 => c"q",
        Dtype::U32 => c"I",
        Dtype::U64 => c"Q",
    }
}

impl Tensor {
    pub fn new(held: Arc<Held>, index: usize) -> Self {
        let (address, shape) = (held.places[index].address, held.places[index].shape.clone());
        Tensor { held, index, address, shape }
    }

    fn dtype(&self) -> Dtype {
        self.held.places[self.index].dtype
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn strides(&self, unit: usize) -> Vec<usize> {
        let mut strides = vec![unit; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis].max(1);
        }
        strides
    }
}

#[pymethods]
impl Tensor {
    /// Name in the batch.
    #[getter]
    fn name(&self) -> &str {
        &self.held.places[self.index].name
    }

    /// Element type: u8, u16, u32, u64, i32, i64, f16, bf16, f32 or f64.
    #[getter(dtype)]
    fn dtype_name(&self) -> &'static str {
        self.dtype().name()
    }

    /// Sizes, outermost axis first.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
        pyo3::types::PyTuple::new(py, &self.shape)
    }

    /// Axes.
    #[getter]
    fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Bytes of one element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.dtype().size()
    }

    /// Bytes of all elements.
    #[getter]
    fn nbytes(&self) -> usize {
        self.elements() * self.dtype().size()
    }

    /// Name of the batch's tensor of n + 1 offsets into the outermost axis; None for dense tensors.
    #[getter]
    fn offsets(&self) -> Option<&str> {
        self.held.places[self.index].offsets.as_deref()
    }

    /// Address of the first element.
    #[getter]
    fn data_ptr(&self) -> usize {
        self.address
    }

    /// Entries `begin` to `end` of the outermost axis, in the same memory.
    fn slice(&self, begin: usize, end: usize) -> PyResult<Tensor> {
        let rows = self.shape.first().copied().unwrap_or_default();
        if begin > end || end > rows {
            return Err(PyIndexError::new_err(format!("rows {begin}..{end} of {rows}")));
        }
        let stride: usize = self.shape[1..].iter().product::<usize>() * self.dtype().size();
        let mut shape = self.shape.clone();
        shape[0] = end - begin;
        Ok(Tensor {
            held: self.held.clone(),
            index: self.index,
            address: self.address + begin * stride,
            shape,
        })
    }

    /// A read-only NumPy array on the same memory.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("mixfeed.arrays")?.call_method1("to_numpy", (slf,))
    }

    /// A writable torch tensor on the same memory.
    fn torch<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("mixfeed.arrays")?.call_method1("to_torch", (slf,))
    }

    /// Always a CPU: pinned memory is the host's, too.
    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::CPU
    }

    /// A DLPack capsule. Consumers that know version 1 are told that the memory is read-only.
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if stream.is_some() {
            return Err(PyBufferError::new_err("`stream` is for devices, and this memory is the host's"));
        }
        if dl_device.is_some_and(|device| device != dlpack::CPU) {
            return Err(PyBufferError::new_err("this memory is the host's: ask for no other device"));
        }
        if copy == Some(true) {
            return Err(PyBufferError::new_err("copies are the consumer's to make"));
        }
        self.capsule(py, self.dtype(), max_version.is_some_and(|(major, _)| major >= 1))
    }

    /// As `__dlpack__` of the first version, which knows no read-only memory: what is written to it is the caller's. `signed`:
    /// u32 and u64 are told as i32 and i64.
    #[pyo3(signature = (*, signed = false))]
    fn writable_capsule<'py>(&self, py: Python<'py>, signed: bool) -> PyResult<Bound<'py, PyAny>> {
        let dtype = match (self.dtype(), signed) {
            (Dtype::U32, true) => Dtype::I32,
            (Dtype::U64, true) => Dtype::I64,
            (dtype, _) => dtype,
        };
        self.capsule(py, dtype, false)
    }

    fn __len__(&self) -> PyResult<usize> {
        self.shape.first().copied().ok_or_else(|| pyo3::exceptions::PyTypeError::new_err("no axis"))
    }

    fn __repr__(&self) -> String {
        format!("<mixfeed.Tensor {} {} {:?}>", self.name(), self.dtype().name(), self.shape)
    }

    /// See the buffer protocol. Contiguous, so no request for a layout has to be refused but one for Fortran's.
    ///
    /// # Safety
    /// `view` is the interpreter's.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("view is null"));
        }
        // SAFETY: not null, as checked; the interpreter gave it to be filled in.
        let view = unsafe { &mut *view };
        view.obj = ptr::null_mut();
        if flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE {
            return Err(PyBufferError::new_err("batches are read-only: copy it, or take `Tensor.torch()`"));
        }
        let this = slf.get();
        if flags & ffi::PyBUF_F_CONTIGUOUS == ffi::PyBUF_F_CONTIGUOUS && this.shape.len() > 1 {
            return Err(PyBufferError::new_err("batches are row-major"));
        }
        let signed = |sizes: &[usize]| sizes.iter().map(|size| *size as ffi::Py_ssize_t).collect();
        let unit = this.dtype().size();
        let mut extents =
            Box::new(Extents { shape: signed(&this.shape), strides: signed(&this.strides(unit)) });
        view.buf = ptr::with_exposed_provenance_mut(this.address);
        view.len = this.nbytes() as ffi::Py_ssize_t;
        view.itemsize = unit as ffi::Py_ssize_t;
        view.readonly = 1;
        view.ndim = this.shape.len() as c_int;
        let given = |flag: c_int| flags & flag == flag;
        view.format = match given(ffi::PyBUF_FORMAT) {
            true => format(this.dtype()).as_ptr().cast_mut(),
            false => ptr::null_mut(),
        };
        view.shape = if given(ffi::PyBUF_ND) { extents.shape.as_mut_ptr() } else { ptr::null_mut() };
        view.strides = if given(ffi::PyBUF_STRIDES) { extents.strides.as_mut_ptr() } else { ptr::null_mut() };
        view.suboffsets = ptr::null_mut();
        view.internal = Box::into_raw(extents).cast();
        view.obj = slf.into_any().into_ptr();
        Ok(())
    }

    /// See the buffer protocol.
    ///
    /// # Safety
    /// `view` was filled in by `__getbuffer__`.
    unsafe fn __releasebuffer__(&self, view: *mut ffi::Py_buffer) {
        // SAFETY: `__getbuffer__` put a box there, and the interpreter releases each view once.
        drop(unsafe { Box::from_raw((*view).internal.cast::<Extents>()) });
    }
}

impl Tensor {
    fn capsule<'py>(&self, py: Python<'py>, dtype: Dtype, versioned: bool) -> PyResult<Bound<'py, PyAny>> {
        let given = dlpack::Given {
            address: self.address,
            dtype,
            shape: &self.shape,
            strides: &self.strides(1),
            owner: self.held.clone(),
        };
        dlpack::capsule(py, given, versioned)
    }
}
