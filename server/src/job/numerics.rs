//! Which rules made a batch's bytes, and which a job allows.

use super::JobError;
use mixfeed_proto as v1;

/// The numerics of the CPU executor of this build: rules of decoder, resampler and executor. Raised by hand when golden
/// digests change.
pub const NUMERICS: &str = "cpu-1";
/// The numerics of the libtorch executor of this build, with the same decoder; scenes keep the transforms of [`NUMERICS`].
pub const TORCH: &str = "torch-1";
/// What a job says that takes either, and may change between them while it runs.
const TOLERANT: &str = "tolerant";

/// Rules that a job allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// [`NUMERICS`] alone.
    Cpu,
    /// [`TORCH`] alone.
    Torch,
    /// A device as long as it mixes, and the CPU otherwise.
    Tolerant,
}

impl Numerics {
    /// By the name in a spec.
    pub fn named(name: &str) -> Option<Numerics> {
        match name {
            NUMERICS => Some(Numerics::Cpu),
            TORCH => Some(Numerics::Torch),
            TOLERANT => Some(Numerics::Tolerant),
            _ => None,
        }
    }

    /// What a header or receipt says of rows made by `by`.
    pub fn told(self, by: MadeBy) -> &'static str {
        match (self, by) {
            (Numerics::Cpu, _) => NUMERICS,
            (Numerics::Torch, _) => TORCH,
            (Numerics::Tolerant, MadeBy { cpu: true, device: true }) => "cpu-1+torch-1",
            (Numerics::Tolerant, MadeBy { device: true, .. }) => TORCH,
            (Numerics::Tolerant, MadeBy { .. }) => NUMERICS,
        }
    }

    /// Whether a receipt of such a job may say `told`.
    pub fn admits(self, told: &str) -> bool {
        let every = [MadeBy::CPU, MadeBy::DEVICE, MadeBy { cpu: true, device: true }];
        every.into_iter().any(|by| self.told(by) == told)
    }
}

/// Executors that made something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeBy {
    cpu: bool,
    device: bool,
}

impl MadeBy {
    /// The CPU executor.
    pub const CPU: MadeBy = MadeBy { cpu: true, device: false };
    /// The server's device.
    pub const DEVICE: MadeBy = MadeBy { cpu: false, device: true };

    /// These and `others`.
    pub fn and(self, others: MadeBy) -> MadeBy {
        MadeBy { cpu: self.cpu || others.cpu, device: self.device || others.device }
    }
}

/// Whether a spec leaves its numerics to a server that has more than one. What mixers make is libtorch's anyway.
pub(super) fn is_open(spec: &v1::JobSpec) -> bool {
    spec.numerics.is_empty() && is_mixed(spec) && !super::pictures::names_mixer(spec)
}

/// Whether the server mixes pictures or scenes for a job: the trainer mixes those of a recipe.
fn is_mixed(spec: &v1::JobSpec) -> bool {
    let recipe = spec.output.is_some_and(|output| output.delivery() == v1::Delivery::Recipe);
    spec.tokens.is_none() && !recipe
}

/// `spec` as a server with a device takes it.
pub fn with_device(mut spec: v1::JobSpec) -> v1::JobSpec {
    // Numerics that nobody has are told when the spec is resolved.
    let _ = settle(&mut spec, true);
    spec
}

/// Fills in the numerics of a spec that says none, on a server with a `device` or without: pictures and scenes are mixed by
/// a device where there is one, and otherwise by the CPU, with masks of mixers made by libtorch all the same.
///
/// # Errors
/// [`JobError::NoDevice`] for a job that this server cannot mix, [`JobError::Numerics`] for numerics that nobody has.
pub(super) fn settle(spec: &mut v1::JobSpec, device: bool) -> Result<Numerics, JobError> {
    if spec.numerics.is_empty() {
        let names = match (device && is_mixed(spec), super::pictures::names_mixer(spec)) {
            (true, _) => TORCH,
            (false, true) => TOLERANT,
            (false, false) => NUMERICS,
        };
        spec.numerics = names.into();
    }
    let numerics =
        Numerics::named(&spec.numerics).ok_or_else(|| JobError::Numerics { asked: spec.numerics.clone() })?;
    if numerics == Numerics::Torch && spec.tokens.is_some() {
        return Err(JobError::Unsupported(format!("numerics `{TORCH}` for jobs of tokens")));
    }
    match (numerics, device, cfg!(feature = "libtorch")) {
        (Numerics::Torch, false, false) => Err(JobError::NoDevice { built: false }),
        (Numerics::Torch, false, true) => Err(JobError::NoDevice { built: true }),
        (Numerics::Cpu | Numerics::Torch | Numerics::Tolerant, _, _) => Ok(numerics),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(numerics: &str) -> v1::JobSpec {
        v1::JobSpec { numerics: numerics.into(), ..Default::default() }
    }

    #[test]
    fn a_spec_without_numerics_gets_those_of_the_server() {
        let mut pictures = spec("");
        assert!(matches!(settle(&mut pictures, true), Ok(Numerics::Torch)));
        assert_eq!(pictures.numerics, "torch-1");
        let mut pictures = spec("");
        assert!(matches!(settle(&mut pictures, false), Ok(Numerics::Cpu)));
        assert_eq!(pictures.numerics, "cpu-1");
        let mut scenes = v1::JobSpec { points: Some(v1::PointSpec::default()), ..spec("") };
        assert!(matches!(settle(&mut scenes.clone(), false), Ok(Numerics::Cpu)));
        assert!(matches!(settle(&mut scenes, true), Ok(Numerics::Torch)));
        let mut tokens = v1::JobSpec { tokens: Some(v1::TokenSpec::default()), ..spec("") };
        assert!(matches!(settle(&mut tokens, true), Ok(Numerics::Cpu)));
        assert!(is_open(&spec("")) && !is_open(&tokens), "nothing is measured for tokens");
    }

    #[test]
    fn what_a_server_lacks_is_refused_and_a_tolerant_job_needs_nothing() {
        for (name, device) in [("cpu-1", true), ("torch-1", true), ("cpu-1", false), ("tolerant", false)] {
            assert_eq!(settle(&mut spec(name), device).ok(), Numerics::named(name), "{name}");
        }
        let error = settle(&mut spec("torch-1"), false).expect_err("no device").to_string();
        assert!(error.contains("`cpu-1` or `tolerant`"), "{error}");
        assert!(matches!(settle(&mut spec("cpu-2"), true), Err(JobError::Numerics { .. })));
        let mut tokens = v1::JobSpec { tokens: Some(v1::TokenSpec::default()), ..spec("torch-1") };
        assert!(matches!(settle(&mut tokens, true), Err(JobError::Unsupported(_))));
    }

    #[test]
    fn receipts_tell_who_made_the_rows() {
        let both = MadeBy::CPU.and(MadeBy::DEVICE);
        assert_eq!(Numerics::Tolerant.told(both), "cpu-1+torch-1");
        assert_eq!(Numerics::Tolerant.told(MadeBy::DEVICE), "torch-1");
        assert_eq!(Numerics::Tolerant.told(MadeBy::default()), "cpu-1", "no row was mixed by a device");
        assert!(Numerics::Tolerant.admits("cpu-1+torch-1") && Numerics::Tolerant.admits("torch-1"));
        assert!(Numerics::Cpu.admits("cpu-1") && !Numerics::Cpu.admits("torch-1"));
        assert!(Numerics::Torch.admits("torch-1") && !Numerics::Torch.admits("cpu-1"));
    }
}
