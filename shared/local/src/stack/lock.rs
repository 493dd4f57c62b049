//! Keeps two stacks out of one data folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::StackError;

/// A folder that no other stack uses while this lives. The system gives the lock up when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder and locks it.
    pub(super) fn take(folder: &Path) -> Result<Self, StackError> {
        let unusable = |source| StackError::Data { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let file = File::create(folder.join("lock")).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StackError::DataInUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FolderLock, StackError};

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data");
        let first = FolderLock::take(&path).expect("it is free");
        assert!(matches!(FolderLock::take(&path), Err(StackError::DataInUse { .. })));
        drop(first);
        FolderLock::take(&path).expect("it is free again");
    }
}
