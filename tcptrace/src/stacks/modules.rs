//! The modules of all processes, each loaded once.

use std::collections::HashMap;
use std::sync::Arc;

use super::module::{MappedFile, Module, ModuleError, ModuleId};

/// Modules loaded once and shared by the processes that map them.
#[derive(Debug, Default)]
pub struct Modules {
    loaded: HashMap<ModuleId, Arc<Module>>,
    cfi_bytes: usize,
    vdso: Option<Option<Arc<Module>>>,
}

impl Modules {
    /// The module of an open file.
    ///
    /// # Errors
    /// See [`MappedFile::load`].
    pub fn load(&mut self, file: MappedFile) -> Result<Arc<Module>, ModuleError> {
        if let Some(module) = self.loaded.get(&file.id) {
            return Ok(module.clone());
        }
        let module = Arc::new(file.load()?);
        self.cfi_bytes += module.cfi_bytes();
        self.loaded.insert(module.id(), module.clone());
        Ok(module)
    }

    /// The kernel's shared object.
    pub fn vdso(&mut self) -> Option<Arc<Module>> {
        self.vdso.get_or_insert_with(|| Module::vdso().map(Arc::new)).clone()
    }

    /// Modules that are held open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.loaded.len()
    }

    /// Bytes of call-frame information held.
    #[must_use]
    pub fn cfi_bytes(&self) -> usize {
        self.cfi_bytes
    }

    /// Lets go of the modules that nothing else holds.
    pub fn drop_unused(&mut self) {
        self.loaded.retain(|_, module| Arc::strong_count(module) > 1);
        self.cfi_bytes = self.loaded.values().map(|module| module.cfi_bytes()).sum();
    }
}
