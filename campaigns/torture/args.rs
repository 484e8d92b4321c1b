//! The command line: a campaign, then `--name value` pairs.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The options that were given and not yet asked for.
pub struct Args(BTreeMap<String, String>);

impl Args {
    /// # Errors
    /// A name without a value, a value without a name.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                return Err(format!("{word:?} is not an option; options are --name value"));
            };
            let value = words.next().ok_or_else(|| format!("--{name} has no value"))?;
            options.insert(name.to_owned(), value);
        }
        Ok(Args(options))
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// # Errors
    /// A value that cannot be read as what is wanted.
    pub fn maybe<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("--{name} {text:?} cannot be read"))
    }

    /// # Errors
    /// As [`Args::maybe`].
    pub fn get<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, String> {
        Ok(self.maybe(name)?.unwrap_or(default))
    }

    /// What nobody asked for, to be passed on.
    pub fn rest(self) -> Vec<String> {
        self.0.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }

    /// # Errors
    /// An option that nobody asked for.
    pub fn end(self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("--{name} is no option of this campaign")),
        }
    }
}
