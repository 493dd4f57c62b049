//! The repository's template with changes, for what no parameter of it sets.

use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;

use crate::repository;

/// A template in the making.
#[derive(Clone, Debug)]
pub struct TestTemplate(Value);

impl TestTemplate {
    /// The repository's template, as it is.
    ///
    /// # Panics
    /// When it is no YAML.
    #[must_use]
    pub fn of_repository() -> Self {
        Self(serde_yaml_ng::from_str(&repository::read("template.yaml")).expect("it is YAML"))
    }

    /// Sets a variable of a function, also one that the template has.
    ///
    /// # Panics
    /// When there is no such function, or it has no variables.
    #[must_use]
    pub fn with_variable(mut self, function: &str, name: &str, value: impl Into<Value>) -> Self {
        let properties = &mut self.0["Resources"][function]["Properties"];
        let variables = properties["Environment"]["Variables"].as_mapping_mut();
        let variables = variables.unwrap_or_else(|| panic!("the template has no function {function} with variables"));
        variables.insert(name.into(), value.into());
        self
    }

    /// Writes it into a folder, and gives the file's path.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("template.yaml");
        let text = serde_yaml_ng::to_string(&self.0).expect("YAML is written as it was read");
        std::fs::write(&path, text).expect("the folder is ours");
        path
    }
}

#[cfg(test)]
mod tests {
    use super::TestTemplate;

    #[test]
    fn a_variable_is_added_and_the_rest_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = TestTemplate::of_repository().with_variable("PublishFunction", "ADDED", "1").write(folder.path());
        let changed: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("YAML");
        let mut expected = TestTemplate::of_repository().0;
        assert_ne!(changed, expected);
        expected["Resources"]["PublishFunction"]["Properties"]["Environment"]["Variables"]["ADDED"] = "1".into();
        assert_eq!(changed, expected);
    }

    #[test]
    #[should_panic(expected = "no function Nobody")]
    fn a_function_that_is_not_there_is_named() {
        let _ = TestTemplate::of_repository().with_variable("Nobody", "ADDED", "1");
    }
}
