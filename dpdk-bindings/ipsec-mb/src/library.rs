//! The library: loaded once, for the best instructions that this CPU has.

use crate::sys;
use core::ffi::CStr;
use core::fmt;
use core::ptr::NonNull;
use std::sync::OnceLock;

const _: () = assert!(sys::IMB_VERSION_NUM >= 0x1_00_00, "libIPSec_MB 1.0 or newer is needed");

/// Expands a key.
pub(crate) type Expand = unsafe extern "C" fn(*const core::ffi::c_void, *mut sys::gcm_key_data);

/// Encrypts or decrypts one packet and computes its tag.
pub(crate) type Crypt = unsafe extern "C" fn(
    *const sys::gcm_key_data,
    *mut sys::gcm_context_data,
    *mut u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    u64,
    *mut u8,
    u64,
);

/// One key length's functions.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    pub(crate) expand: Expand,
    pub(crate) seal: Crypt,
    pub(crate) open: Crypt,
}

/// Why the library cannot be used on this machine. The `ring` engine can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No memory for the library's state.
    #[error("libIPSec_MB found no memory for its state")]
    OutOfMemory,
    /// The CPU lacks AES or carry-less multiplication instructions; emulated ones are slow and leak by their timing.
    #[error("this CPU has no AES instructions that libIPSec_MB could use")]
    NoAesInstructions,
    /// The library failed its own start, e.g. its self-test.
    #[error("libIPSec_MB did not start: {0}")]
    NotStarted(String),
}

/// The library, ready: proof that its functions for this CPU were found.
pub struct Library {
    pub(crate) aes128: Functions,
    pub(crate) aes256: Functions,
    architecture: &'static str,
}

impl Library {
    /// The library; the first call starts it.
    pub fn get() -> Result<&'static Library, Error> {
        static LIBRARY: OnceLock<Result<Library, Error>> = OnceLock::new();
        LIBRARY.get_or_init(Library::start).as_ref().map_err(Clone::clone)
    }

    /// The instruction set it chose.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Its version.
    pub fn version(&self) -> String {
        // SAFETY: the string is static and terminated.
        unsafe { CStr::from_ptr(sys::imb_get_version_str()) }.to_string_lossy().into_owned()
    }

    fn start() -> Result<Library, Error> {
        // SAFETY: takes flags and returns memory or null.
        let manager = NonNull::new(unsafe { sys::alloc_mb_mgr(0) }).ok_or(Error::OutOfMemory)?;
        let mut architecture = sys::IMB_ARCH_IMB_ARCH_NONE;
        // SAFETY: `manager` came from the library, and `architecture` is ours.
        unsafe { sys::init_mb_mgr_auto(manager.as_ptr(), &mut architecture) };
        // SAFETY: the manager is initialised, and nobody changes it.
        let library = Library::read(unsafe { manager.as_ref() }, architecture);
        // The direct functions need no manager, so it need not stay.
        // SAFETY: it came from the library, and no reference to it is left.
        unsafe { sys::free_mb_mgr(manager.as_ptr()) };
        library
    }

    fn read(manager: &sys::IMB_MGR, architecture: sys::IMB_ARCH) -> Result<Library, Error> {
        if manager.imb_errno != 0 {
            // SAFETY: the string is static and terminated, for every number.
            let text = unsafe { CStr::from_ptr(sys::imb_get_strerror(manager.imb_errno)) };
            return Err(Error::NotStarted(text.to_string_lossy().into_owned()));
        }
        let needed = u64::from(sys::IMB_FEATURE_AESNI | sys::IMB_FEATURE_PCLMULQDQ);
        if manager.features & needed != needed {
            return Err(Error::NoAesInstructions);
        }
        let functions = |expand, seal, open| Some(Functions { expand: expand?, seal: seal?, open: open? });
        let missing = || Error::NotStarted("it has no AES-GCM".into());
        Ok(Library {
            aes128: functions(manager.gcm128_pre, manager.gcm128_enc, manager.gcm128_dec).ok_or_else(missing)?,
            aes256: functions(manager.gcm256_pre, manager.gcm256_enc, manager.gcm256_dec).ok_or_else(missing)?,
            architecture: match architecture {
                sys::IMB_ARCH_IMB_ARCH_SSE => "sse",
                sys::IMB_ARCH_IMB_ARCH_AVX2 => "avx2",
                sys::IMB_ARCH_IMB_ARCH_AVX512 => "avx512",
                // Releases differ in what else they have: 1.x knows AVX without 2.
                _ => "other",
            },
        })
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("architecture", &self.architecture).finish_non_exhaustive()
    }
}
