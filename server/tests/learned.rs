//! The policy `learned`: what is refused and why, and what a server with mixers serves.
#![allow(clippy::unwrap_used)]

mod stand;

use mixfeed_client::Error;
use mixfeed_proto as v1;
use mixfeed_server::exec::device::Device;
use mixfeed_server::{StartError, config};
use stand::{Server, sources, spec};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::watch;

fn declared(names: &[(&str, &str)]) -> BTreeMap<String, config::Mixer> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mixers");
    let manifest = |folder: &str| fixtures.join(folder).join("manifest.json");
    names.iter().map(|(n, f)| ((*n).to_owned(), config::Mixer { manifest: manifest(f) })).collect()
}

/// The job of the stand with `learned` alone, or with nothing of it where `mixer` is empty.
fn learned(mixer: &str) -> v1::JobSpec {
    let mut spec = spec();
    let options = [("mixer", mixer)].into_iter().filter(|(_, name)| !name.is_empty());
    let options = options.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let policy = v1::PolicySpec { name: "learned".into(), options, ..Default::default() };
    spec.mix.as_mut().unwrap().policies = vec![policy];
    spec
}

async fn start(mixers: &[(&str, &str)], device: Device) -> Result<(), StartError> {
    let listen = vec!["127.0.0.1:0".into()];
    let mixers = declared(mixers);
    let settings = config::Server { listen, http: String::new(), device, mixers, ..Default::default() };
    let (_stop, stopped) = watch::channel(false);
    mixfeed_server::start(&settings, sources(), BTreeMap::new(), None, stopped).await.map(drop)
}

#[tokio::test]
async fn a_mixer_that_cannot_be_used_keeps_a_server_from_starting() {
    let error = start(&[("m", "draws")], Device::Cpu).await.unwrap_err();
    assert!(error.is_configuration());
    let want = match cfg!(feature = "libtorch") {
        true => "`server.mixers`: mixer `m`: two runs on the same pair differ",
        false => {
            "`server.mixers`: mixer `m` needs libtorch, which is not in this build; build with `--features libtorch`"
        }
    };
    assert!(error.to_string().starts_with(want), "{error}");
}

#[cfg(not(feature = "libtorch"))]
#[tokio::test]
async fn a_build_without_libtorch_refuses_the_policy_and_says_what_it_needs() {
    let server = Server::start(sources()).await;
    let client = server.client().await;
    let error = client.open_job("job", &learned("m")).await.unwrap_err();
    let Error::Unimplemented { message } = error else { panic!("{error:?}") };
    assert!(message.contains("needs the feature `libtorch`"), "{message}");
}

#[tokio::test]
async fn the_policy_is_listed_with_its_option() {
    let server = Server::start(sources()).await;
    let client = server.client().await;
    let policies = client.list_policies().await.unwrap();
    let policy = policies.into_iter().find(|policy| policy.name == "learned").unwrap();
    assert!(policy.options.iter().any(|option| option.name == "mixer" && option.values.is_empty()));
}

#[cfg(feature = "libtorch")]
mod with_libtorch {
    use super::*;
    use std::process::Command;

    async fn server(mixers: &[(&str, &str)], change: impl FnOnce(&mut config::Server)) -> Server {
        Server::with(sources(), |settings| {
            settings.mixers = declared(mixers);
            change(settings);
        })
        .await
    }

    const ALL: [(&str, &str); 3] = [("a", "automix"), ("b", "adautomix"), ("c", "adamixup")];

    #[tokio::test]
    async fn a_job_names_mixers_of_the_operator_and_nothing_else() {
        let server = server(&ALL, |_| {}).await;
        let client = server.client().await;
        for (mixer, want) in [
            ("", "is missing, want one of a, b, c"),
            ("d", "is `d`, want one of a, b, c"),
            ("/etc/passwd", "is `/etc/passwd`, want one of a, b, c"),
            ("../automix/manifest.json", "want one of a, b, c"),
        ] {
            let error = client.open_job("job", &learned(mixer)).await.unwrap_err();
            let Error::Invalid { violations, .. } = error else { panic!("{error}") };
            assert_eq!(violations[0].field, "mix.policies[0].mixer");
            assert!(violations[0].description.contains(want), "{violations:?}");
        }
        let cpu = v1::JobSpec { numerics: "cpu-1".into(), ..learned("a") };
        let Error::Invalid { violations, .. } = client.open_job("job", &cpu).await.unwrap_err() else {
            panic!("cpu-1 is of the CPU alone")
        };
        assert_eq!(violations[0].field, "numerics");
        let bare = Server::start(sources()).await;
        let error = bare.client().await.open_job("job", &learned("a")).await.unwrap_err();
        assert!(error.to_string().contains("this server has no mixer"), "{error}");
    }

    /// Three steps of the job, from a server of its own.
    async fn steps(
        spec: &v1::JobSpec,
        change: impl FnOnce(&mut config::Server),
    ) -> Vec<mixfeed_client::Batch> {
        let server = server(&ALL, change).await;
        stand::pull(&server.open(spec).await, 0, 1, 2, 3).await
    }

    fn all(batches: &[mixfeed_client::Batch]) -> Vec<Vec<(String, Vec<u8>)>> {
        batches.iter().map(stand::bytes).collect()
    }

    #[tokio::test]
    async fn threads_restarts_and_ranks_change_no_byte() {
        for mixer in ["a", "b", "c"] {
            let spec = learned(mixer);
            let one = steps(&spec, |settings| settings.threads = 1).await;
            assert_eq!(one[0].numerics(), "cpu-1+torch-1", "the CPU mixed, with masks of libtorch");
            let four = steps(&spec, |settings| settings.threads = 4).await;
            assert!(all(&one) == all(&four), "{mixer}");
            let server = server(&ALL, |_| {}).await;
            let client = server.open(&spec).await;
            let mut ranks = Vec::new();
            for rank in 0..4 {
                ranks.push(stand::pull(&client, rank, 4, 2, 1).await.remove(0));
            }
            assert!(stand::joined(&ranks) == stand::bytes(&one[0]), "{mixer}");
        }
    }

    fn tensor(batch: &mixfeed_client::Batch, name: &str) -> Vec<u8> {
        batch.tensors().find(|tensor| tensor.name == name).unwrap().bytes.to_vec()
    }

    #[tokio::test]
    async fn label_weights_are_lambda_or_what_is_taken_from_the_interval() {
        for mixer in ["a", "b", "c"] {
            let (mut rows, mut differ) = (0, 0);
            for batch in steps(&learned(mixer), |_| {}).await {
                let weights = tensor(&batch, "label.weight");
                let lambdas = tensor(&batch, "plan.lambda");
                for (weights, lambdas) in weights.chunks_exact(8).zip(lambdas.chunks_exact(16)) {
                    let number = |at: usize| f64::from_le_bytes(lambdas[at..at + 8].try_into().unwrap());
                    let (drawn, own) = (number(0), number(8));
                    assert_eq!(weights[..4], (own as f32).to_le_bytes());
                    assert_eq!(weights[4..], ((1.0 - own) as f32).to_le_bytes());
                    (rows, differ) = (rows + 1, differ + usize::from(own != drawn && own != 1.0));
                }
            }
            // A third of the rows of a block of three meets itself; those are copies, of weight 1.
            let all = if mixer == "c" { differ > rows / 3 } else { differ == 0 };
            assert!(all, "{mixer}: {differ} of {rows}");
        }
    }

    #[tokio::test]
    async fn the_device_mixes_the_same_masks() {
        for mixer in ["a", "b", "c"] {
            let cpu = steps(&learned(mixer), |_| {}).await;
            let torch = steps(&learned(mixer), |settings| settings.device = Device::Torch).await;
            assert_eq!(torch[0].numerics(), "torch-1");
            for (cpu, torch) in all(&cpu).iter().zip(all(&torch)) {
                assert!(cpu[1..] == torch[1..], "labels, ids and plans are the same bytes");
                let near = cpu[0].1.iter().zip(&torch[0].1).all(|(a, b)| a.abs_diff(*b) <= 1);
                assert!(near && cpu[0].1.len() == torch[0].1.len());
            }
        }
    }

    #[tokio::test]
    async fn another_mixer_of_the_same_name_is_another_job() {
        let mut digests = Vec::new();
        for folder in ["automix", "adautomix", "automix"] {
            let server = server(&[("m", folder)], |_| {}).await;
            digests.push(server.client().await.open_job("job", &learned("m")).await.unwrap().digest);
        }
        assert!(digests[0] != digests[1] && digests[0] == digests[2]);
    }

    #[tokio::test]
    async fn a_pair_that_gets_nan_ends_the_stream_and_says_so() {
        let server = server(&[("m", "nan")], |_| {}).await;
        let client = server.open(&learned("m")).await;
        let mut stream = client.stream("job", Default::default()).await.unwrap();
        let error = stream.next_batch().await.unwrap_err();
        let Error::FailedPrecondition { message, reason, .. } = error else { panic!("{error:?}") };
        assert!(message.contains("mixer `m`: rows") && message.contains("NaN"), "{message}");
        assert_eq!(reason, "MIXER");
    }

    /// A process draws a sheet of rows; another process, whatever its threads, draws the same.
    #[test]
    fn another_process_makes_the_same_pictures() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, _) in stand::pictures() {
            let file = folder.path().join("pics").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        let manifest = declared(&[("m", "automix")]).remove("m").unwrap().manifest;
        let text = format!(
            "[server.mixers.m]\nmanifest = {manifest:?}\n[sources.pics]\nkind = \"folder\"\npath = \"pics\"\n"
        );
        let config = folder.path().join("mixfeed.toml");
        std::fs::write(&config, text).unwrap();
        let mut pictures = Vec::new();
        for threads in ["1", "3", "3"] {
            let out = folder.path().join("out.png");
            let mut program = Command::new(env!("CARGO_BIN_EXE_mixfeed"));
            program.args(["preview", "--policy", "learned", "--set", "mixer=m", "--config"]);
            program.arg(&config).arg("--out").arg(&out);
            program.env("OMP_NUM_THREADS", threads).env("RAYON_NUM_THREADS", threads);
            let done = program.output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            pictures.push(std::fs::read(&out).unwrap());
        }
        assert!(pictures[0] == pictures[1] && pictures[1] == pictures[2]);
    }
}
