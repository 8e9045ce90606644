//! libedgewise for Rust: `mod edgewise;` and `-l edgewise`. An [`Engine`] is a file with one context; it closes itself.

use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_void};
use std::fmt;
use std::ptr::null_mut;

const MAX_RANK: usize = 8;

#[repr(C)]
struct Options {
    threads: i32,
    pin: i32,
    profile: i32,
}

#[link(name = "edgewise")]
extern "C" {
    fn ew_last_error() -> *const c_char;
    fn ew_open(path: *const c_char, engine: *mut *mut c_void) -> i32;
    fn ew_close(engine: *mut c_void);
    fn ew_input_count(engine: *const c_void) -> i32;
    fn ew_output_count(engine: *const c_void) -> i32;
    fn ew_context_create(engine: *const c_void, options: *const Options, context: *mut *mut c_void) -> i32;
    fn ew_context_close(context: *mut c_void);
    fn ew_set_input_shape(context: *mut c_void, index: i32, dims: *const i64, rank: i32) -> i32;
    fn ew_output_shape(context: *mut c_void, index: i32, dims: *mut i64, rank: *mut i32) -> i32;
    fn ew_write_input(context: *mut c_void, index: i32, data: *const c_void, bytes: usize) -> i32;
    fn ew_read_output(context: *mut c_void, index: i32, data: *mut c_void, bytes: usize) -> i32;
    fn ew_run(context: *mut c_void) -> i32;
}

/// What libedgewise refuses: its status (`ew_status`) and its words.
#[derive(Debug)]
pub struct Error {
    pub status: i32,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A type of which every pattern of bits is a value, so that tensors may be copied into it.
///
/// # Safety
/// No padding, no references, no patterns that are forbidden.
pub unsafe trait Element: Copy {}
unsafe impl Element for f32 {}
unsafe impl Element for u8 {}
unsafe impl Element for i8 {}
unsafe impl Element for u16 {}
unsafe impl Element for i32 {}
unsafe impl Element for i64 {}

/// An engine file with the memory of one inference at a time.
pub struct Engine {
    engine: *mut c_void,
    context: *mut c_void,
}

// One thread at a time, whichever it is; errors are read on the thread that met them.
unsafe impl Send for Engine {}

impl Engine {
    /// `threads`: 0 is one per core, 1 starts none.
    pub fn open(path: &str, threads: i32) -> Result<Engine, Error> {
        let path = CString::new(path).map_err(|error| Error { status: 1, message: error.to_string() })?;
        let options = Options { threads, pin: 0, profile: 0 };
        let mut made = Engine { engine: null_mut(), context: null_mut() };
        unsafe {
            check(ew_open(path.as_ptr(), &mut made.engine))?;
            check(ew_context_create(made.engine, &options, &mut made.context))?;
        }
        Ok(made)
    }

    pub fn inputs(&self) -> i32 {
        unsafe { ew_input_count(self.engine) }
    }

    pub fn outputs(&self) -> i32 {
        unsafe { ew_output_count(self.engine) }
    }

    /// For inputs with free dims, before the first run and whenever it changes.
    pub fn set_input_shape(&mut self, index: i32, dims: &[i64]) -> Result<(), Error> {
        check(unsafe { ew_set_input_shape(self.context, index, dims.as_ptr(), dims.len() as i32) })
    }

    pub fn output_shape(&mut self, index: i32) -> Result<Vec<i64>, Error> {
        let (mut dims, mut rank) = ([0i64; MAX_RANK], 0i32);
        check(unsafe { ew_output_shape(self.context, index, dims.as_mut_ptr(), &mut rank) })?;
        Ok(dims[..rank as usize].to_vec())
    }

    /// Exactly as many bytes as the tensor has; the element type is the caller's to know.
    pub fn write_input<T: Element>(&mut self, index: i32, data: &[T]) -> Result<(), Error> {
        check(unsafe { ew_write_input(self.context, index, data.as_ptr().cast(), std::mem::size_of_val(data)) })
    }

    pub fn run(&mut self) -> Result<(), Error> {
        check(unsafe { ew_run(self.context) })
    }

    pub fn read_output<T: Element>(&mut self, index: i32, data: &mut [T]) -> Result<(), Error> {
        check(unsafe { ew_read_output(self.context, index, data.as_mut_ptr().cast(), std::mem::size_of_val(data)) })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        unsafe {
            ew_context_close(self.context);
            ew_close(self.engine);
        }
    }
}

fn check(status: i32) -> Result<(), Error> {
    if status == 0 {
        return Ok(());
    }
    let message = unsafe { CStr::from_ptr(ew_last_error()) }.to_string_lossy().into_owned();
    Err(Error { status, message })
}
