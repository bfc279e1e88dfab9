//! Which images a command is about: names on the command line, or those of a list.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

/// The twin of `--file`. On the command line images and a list exclude each other; images there are stronger than a
/// list that only the environment names.
const FILE: &str = "PREPULL_FILE";

/// What people read instead of an empty table.
pub(super) const NO_IMAGES: &str = "the list has no images";

/// Images or a list.
#[derive(Debug, clap::Args)]
pub(super) struct ImageArgs {
    /// Images, as a Pod would name them
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,
    /// A list with the images, instead of names on the command line [env: PREPULL_FILE]
    #[arg(short, long, value_name = "LIST")]
    file: Option<PathBuf>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// These, as written; what is no text is shown as far as it can be, and is no name either.
    Images(Vec<String>),
    /// Those of this list.
    List(PathBuf),
}

impl ImageArgs {
    /// What is asked for, or in one line why that is not clear.
    pub(super) fn into_asked(self) -> Result<Asked, &'static str> {
        self.with_twin(env::var_os(FILE))
    }

    fn with_twin(self, twin: Option<OsString>) -> Result<Asked, &'static str> {
        match (self.images, self.file) {
            (images, None) if !images.is_empty() => {
                Ok(Asked::Images(images.iter().map(|image| image.to_string_lossy().into_owned()).collect()))
            }
            (images, Some(file)) if images.is_empty() => Ok(Asked::List(file)),
            (_, Some(_)) => {
                Err("images on the command line and --file exclude each other; write the images into the list")
            }
            (_, None) => twin
                .filter(|twin| !twin.is_empty())
                .map(|twin| Asked::List(twin.into()))
                .ok_or("no image is named; write images behind the command, or name a list with --file"),
        }
    }
}

/// The values of a repeatable flag, or else those of its twin in the environment: there, commas separate them.
pub(super) fn or_twin<T: From<OsString>>(given: Vec<T>, twin: &str) -> Vec<T> {
    if given.is_empty() { separated(env::var_os(twin).unwrap_or_default().as_os_str()) } else { given }
}

fn separated<T: From<OsString>>(value: &OsStr) -> Vec<T> {
    let parts = value.as_bytes().split(|b| *b == b',').filter(|part| !part.is_empty());
    parts.map(|part| OsStr::from_bytes(part).to_owned().into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(images: &[&str], file: Option<&str>, twin: Option<&str>) -> Result<Asked, &'static str> {
        let args = ImageArgs { images: images.iter().map(Into::into).collect(), file: file.map(Into::into) };
        args.with_twin(twin.map(Into::into))
    }

    #[test]
    fn the_command_line_is_stronger_than_the_environment() {
        let images = |names: &[&str]| Ok(Asked::Images(names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(asked(&["a"], None, Some("twin")), images(&["a"]));
        assert_eq!(asked(&[""], None, None), images(&[""]));
        assert_eq!(asked(&[], Some("file"), Some("twin")), Ok(Asked::List("file".into())));
        assert_eq!(asked(&[], None, Some("twin")), Ok(Asked::List("twin".into())));
        assert!(asked(&["a"], Some("file"), None).is_err());
        assert!(asked(&[], None, Some("")).is_err() && asked(&[], None, None).is_err());
    }

    #[test]
    fn a_twin_has_several_values_between_commas() {
        let parts: Vec<PathBuf> = separated(OsStr::new("a,,b c,"));
        assert_eq!(parts, [PathBuf::from("a"), PathBuf::from("b c")]);
        assert_eq!(or_twin(vec![PathBuf::from("a,b")], "PATH"), [PathBuf::from("a,b")]);
    }
}
