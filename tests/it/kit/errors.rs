//! What an error has to say.

/// An error's words have to tell the reader what to do.
pub(crate) fn says(error: &exuvia::Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}
