//! stub
use crate::error::CastError;
use crate::version::Version;
use serde::{Deserialize, Serialize};
/// s
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape(String);
/// d
pub struct Describe(String);
impl Describe {
    /// t
    pub fn trace<T>(&mut self) {
        self.0.push_str(std::any::type_name::<T>())
    }
}
impl Shape {
    pub(crate) fn of<V: Version>() -> Result<Shape, CastError> {
        let mut d = Describe(String::new());
        V::describe(&mut d);
        Ok(Shape(d.0))
    }
    pub(crate) fn layout_eq(&self, _o: &Shape) -> bool {
        true
    }
    pub(crate) fn difference(&self, _o: &Shape) -> Option<String> {
        None
    }
}
