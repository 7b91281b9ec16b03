//! Every group alike: the baseline to beat.

use super::given::held;
use super::{Estimator, Method, MethodError, Setup, Vectors, eg};
use crate::args::Args;

/// The method.
#[derive(Debug)]
pub struct Stratified;

impl Method for Stratified {
    fn name(&self) -> &'static str {
        "stratified"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn url(&self) -> &'static str {
        ""
    }
    fn summary(&self) -> &'static str {
        "the same share for every group; the baseline to beat"
    }
    fn start(&self, setup: &Setup, _: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        Ok(held(eg::uniform(setup.groups)))
    }
}
