//! Jobs of scenes on a server with libtorch.

use crate::device::{budget_of, one_policy};
use crate::rooms::{memory, plain, rooms, spec};
use crate::stand::Server;
use crate::{batches, bytes};
use mixfeed_client::{Batch, Client, Replay};
use mixfeed_proto as v1;
use mixfeed_server::exec::device::Device;

/// Batches of steps 1 and 2 with these numerics, as the job "job" of a server.
async fn with(server: &Server, spec: &v1::JobSpec, numerics: &str) -> (Client, Vec<Batch>) {
    let spec = v1::JobSpec { numerics: numerics.into(), ..spec.clone() };
    let client = server.open(&spec).await;
    let made = batches(&client, 0, 1, 1, 2).await;
    (client, made)
}

/// Largest difference of two columns of f32, relative to values above 1.
fn apart(a: &[u8], b: &[u8]) -> f32 {
    assert_eq!(a.len(), b.len());
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let both = a.chunks(4).map(value).zip(b.chunks(4).map(value));
    both.fold(0.0, |most, (a, b)| most.max((a - b).abs() / b.abs().max(1.0)))
}

#[tokio::test]
async fn rows_of_scenes_have_the_cpus_coordinates_and_whole_numbers() {
    let server = Server::with(memory(rooms(11)), |settings| settings.device = Device::Torch).await;
    for spec in [spec(), plain(), budget_of(spec(), 12 * 200)] {
        let (client, cpu) = with(&server, &spec, "cpu-1").await;
        client.close_job("job").await.unwrap();
        let (client, torch) = with(&server, &spec, "").await;
        for (torch, cpu) in torch.iter().zip(&cpu) {
            assert_eq!((torch.numerics(), cpu.numerics()), ("torch-1", "cpu-1"));
            assert_eq!(torch.receipt().unwrap().numerics, "torch-1");
            let names = |batch: &Batch| -> Vec<_> { batch.tensors().map(|t| t.name.to_owned()).collect() };
            assert_eq!(names(torch), names(cpu));
            for name in names(cpu) {
                let (torch, cpu) = (bytes(torch, &name), bytes(cpu, &name));
                match &*name {
                    "feat" => assert!(apart(&torch, &cpu) <= 1e-5),
                    _ => assert!(torch == cpu, "`{name}` has other bytes"),
                }
            }
        }
        // As any job: the same for every start and number of ranks, and again by its receipt.
        let receipt = torch[1].receipt().unwrap().clone();
        let again = client.replay("job", Replay::Receipt(receipt)).await.unwrap();
        assert!(bytes(&again, "coord") == bytes(&torch[1], "coord"));
        let mut joined = Vec::new();
        for rank in 0..3 {
            joined.extend(bytes(&batches(&client, rank, 3, 2, 1).await[0], "segment"));
        }
        assert!(joined == bytes(&torch[1], "segment"));
        client.close_job("job").await.unwrap();
    }
}

#[tokio::test]
async fn scenes_that_the_device_transforms_are_near_those_of_the_cpu() {
    let server = Server::with(memory(rooms(11)), |settings| settings.device = Device::Torch).await;
    // A point at the edge of a voxel or a sector may be on its other side: unions of points only.
    let mut spec = one_policy("mix3d");
    spec.points.as_mut().unwrap().voxel = None;
    let (client, cpu) = with(&server, &spec, "cpu-1").await;
    client.close_job("job").await.unwrap();
    let (_, tolerant) = with(&server, &spec, "tolerant").await;
    for (tolerant, cpu) in tolerant.iter().zip(&cpu) {
        assert_eq!(tolerant.numerics(), "torch-1");
        for name in ["coord", "feat"] {
            assert!(apart(&bytes(tolerant, name), &bytes(cpu, name)) <= 1e-3, "`{name}`");
        }
        for name in ["segment", "instance", "scene_id", "offset", "mixed_from", "sample.points"] {
            assert!(bytes(tolerant, name) == bytes(cpu, name), "`{name}`");
        }
    }
}
