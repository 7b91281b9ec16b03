//! As much of a group as there is of it.

use super::given::held;
use super::{Estimator, Method, MethodError, Setup, Vectors, eg};
use crate::args::Args;

/// The method.
#[derive(Debug)]
pub struct Proportional;

impl Method for Proportional {
    fn name(&self) -> &'static str {
        "proportional"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn url(&self) -> &'static str {
        ""
    }
    fn summary(&self) -> &'static str {
        "shares proportional to the groups' sizes"
    }
    fn start(&self, setup: &Setup, _: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        Ok(held(eg::proportional(&setup.sizes)))
    }
}
