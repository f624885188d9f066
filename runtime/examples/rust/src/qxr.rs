//! A safe face of the few calls that a program needs; qxr.h describes them.
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ffi::{c_char, c_int, c_void, CStr};

/// qxr_model: its fields are private, its size is not.
#[repr(C)]
struct RawModel {
    bytes: *const u8,
    isa: *const c_void,
    prepacked: *const u8,
    size: u32,
    failed_at: u32,
}

#[repr(C)]
#[derive(Default)]
struct TensorInfo {
    rank: u32,
    extent: [u32; 3],
    elements: u32,
    lo: i32,
    hi: i32,
    index: u32,
}

extern "C" {
    fn qxr_status_text(status: c_int) -> *const c_char;
    fn qxr_open(bytes: *const c_void, size: usize, model: *mut RawModel) -> c_int;
    fn qxr_select_isa(model: *mut RawModel, name: *const c_char) -> c_int;
    fn qxr_selected_isa(model: *const RawModel) -> *const c_char;
    fn qxr_prepack_size(model: *const RawModel) -> usize;
    fn qxr_prepack(model: *mut RawModel, buffer: *mut c_void, size: usize) -> c_int;
    fn qxr_arena_size(model: *const RawModel, threads: u32) -> usize;
    fn qxr_input_count(model: *const RawModel) -> u32;
    fn qxr_output_count(model: *const RawModel) -> u32;
    fn qxr_input_info(model: *const RawModel, index: u32, info: *mut TensorInfo) -> c_int;
    fn qxr_output_info(model: *const RawModel, index: u32, info: *mut TensorInfo) -> c_int;
    fn qxr_run(
        model: *const RawModel,
        arena: *mut c_void,
        arena_size: usize,
        inputs: *const *const u8,
        outputs: *const *mut i32,
        host: *const c_void,
    ) -> c_int;
}

/// Memory at a multiple of 64 bytes.
struct Memory {
    start: *mut u8,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), 64).expect("a size that memory can have");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Memory { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.start, self.layout) }
    }
}

fn check(status: c_int) -> Result<(), String> {
    match status {
        0 => Ok(()),
        // SAFETY: the text is never null and lives as long as the program.
        _ => Err(unsafe { CStr::from_ptr(qxr_status_text(status)) }.to_string_lossy().into_owned()),
    }
}

/// A network that is ready to run.
pub struct Network {
    model: RawModel,
    arena: Memory,
    _file: Memory,
    _weights: Memory,
    input_sizes: Vec<usize>,
    output_sizes: Vec<usize>,
}

impl Network {
    /// Checks the contents of a .qpk file and prepares them for this processor.
    pub fn new(contents: &[u8]) -> Result<Self, String> {
        let file = Memory::new(contents.len());
        let mut model = RawModel {
            bytes: std::ptr::null(),
            isa: std::ptr::null(),
            prepacked: std::ptr::null(),
            size: 0,
            failed_at: 0,
        };
        // SAFETY: `file` and `weights` are as large as the calls are told, and live as long as the model does.
        unsafe {
            std::ptr::copy_nonoverlapping(contents.as_ptr(), file.start, contents.len());
            check(qxr_open(file.start.cast(), contents.len(), &mut model))?;
            check(qxr_select_isa(&mut model, std::ptr::null()))?;
            let size = qxr_prepack_size(&model);
            let weights = Memory::new(size);
            check(qxr_prepack(&mut model, weights.start.cast(), size))?;
            let input_sizes = (0..qxr_input_count(&model)).map(|i| size_of(&model, qxr_input_info, i)).collect();
            let output_sizes = (0..qxr_output_count(&model)).map(|i| size_of(&model, qxr_output_info, i)).collect();
            let arena = Memory::new(qxr_arena_size(&model, 1));
            Ok(Network { model, arena, _file: file, _weights: weights, input_sizes, output_sizes })
        }
    }

    /// Bytes of each input.
    pub fn input_sizes(&self) -> &[usize] {
        &self.input_sizes
    }

    /// Instruction set of the kernels.
    pub fn isa(&self) -> String {
        // SAFETY: a name is never null and lives as long as the program.
        unsafe { CStr::from_ptr(qxr_selected_isa(&self.model)) }.to_string_lossy().into_owned()
    }

    /// Runs once; `inputs` have the sizes of `input_sizes`.
    pub fn run(&mut self, inputs: &[Vec<u8>]) -> Result<Vec<Vec<i32>>, String> {
        if inputs.iter().map(Vec::len).ne(self.input_sizes.iter().copied()) {
            return Err("inputs of other sizes than the network's".into());
        }
        let mut outputs: Vec<Vec<i32>> = self.output_sizes.iter().map(|&size| vec![0; size]).collect();
        let given: Vec<*const u8> = inputs.iter().map(|x| x.as_ptr()).collect();
        let taken: Vec<*mut i32> = outputs.iter_mut().map(|y| y.as_mut_ptr()).collect();
        let (arena, size) = (self.arena.start.cast(), self.arena.layout.size());
        // SAFETY: every array has the size that the model tells, and the arena is nobody else's meanwhile (&mut self).
        check(unsafe { qxr_run(&self.model, arena, size, given.as_ptr(), taken.as_ptr(), std::ptr::null()) })?;
        Ok(outputs)
    }
}

/// SAFETY of a call: `model` is open.
unsafe fn size_of(
    model: &RawModel,
    describe: unsafe extern "C" fn(*const RawModel, u32, *mut TensorInfo) -> c_int,
    index: u32,
) -> usize {
    let mut info = TensorInfo::default();
    describe(model, index, &mut info);
    info.elements as usize
}
