//! `MixtureService`: answers UNIMPLEMENTED until the keeper is in place.

use super::status;
use mixfeed_proto as v1;
use std::pin::Pin;
use tonic::{Request, Response, Status};

#[derive(Clone, Copy, Debug)]
pub struct Mixture;

type Entries = Pin<Box<dyn futures_util::Stream<Item = Result<v1::WatchMixtureResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::mixture_service_server::MixtureService for Mixture {
    type WatchMixtureStream = Entries;
    async fn watch_mixture(&self, _: Request<v1::WatchMixtureRequest>) -> Result<Response<Entries>, Status> {
        Err(status::unimplemented("WatchMixture"))
    }
    async fn open_attempt(
        &self,
        _: Request<v1::OpenAttemptRequest>,
    ) -> Result<Response<v1::OpenAttemptResponse>, Status> {
        Err(status::unimplemented("OpenAttempt"))
    }
    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Err(status::unimplemented("Report"))
    }
    async fn get_plan(
        &self,
        _: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        Err(status::unimplemented("GetPlan"))
    }
    async fn set_weights(
        &self,
        _: Request<v1::SetWeightsRequest>,
    ) -> Result<Response<v1::SetWeightsResponse>, Status> {
        Err(status::unimplemented("SetWeights"))
    }
    async fn get_mixture(
        &self,
        _: Request<v1::GetMixtureRequest>,
    ) -> Result<Response<v1::GetMixtureResponse>, Status> {
        Err(status::unimplemented("GetMixture"))
    }
    async fn get_mixture_log(
        &self,
        _: Request<v1::GetMixtureLogRequest>,
    ) -> Result<Response<v1::GetMixtureLogResponse>, Status> {
        Err(status::unimplemented("GetMixtureLog"))
    }
    async fn get_accounting(
        &self,
        _: Request<v1::GetAccountingRequest>,
    ) -> Result<Response<v1::GetAccountingResponse>, Status> {
        Err(status::unimplemented("GetAccounting"))
    }
    async fn list_estimators(
        &self,
        _: Request<v1::ListEstimatorsRequest>,
    ) -> Result<Response<v1::ListEstimatorsResponse>, Status> {
        Err(status::unimplemented("ListEstimators"))
    }
    async fn get_candidates(
        &self,
        _: Request<v1::GetCandidatesRequest>,
    ) -> Result<Response<v1::GetCandidatesResponse>, Status> {
        Err(status::unimplemented("GetCandidates"))
    }
}
