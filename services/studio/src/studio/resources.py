"""The routes of batch jobs, costs, scale decisions and dead letters."""

from aiohttp import web

from contracts.messages import BatchJob, CancelBatchJob
from studio import requests, views
from studio.commands import Commands
from studio.costs import MixedCurrencies, cost_tree
from studio.replies import Refused, missing
from studio.server import body, command_id
from studio.tables import Tables

_JOBS = "/v1/batchEndpoints/{endpoint}/jobs"


class Resources:
    """Handlers over the tables; what changes something goes through a command."""

    def __init__(self, tables: Tables, commands: Commands):
        self._tables = tables
        self._commands = commands

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        return [
            web.get("/v1/jobs", self.list_jobs),
            web.get("/v1/jobs/{job}", self.show_job),
            web.post("/v1/jobs/{job}/cancel", self.cancel_job),
            web.get(_JOBS, self.list_jobs_of_endpoint),
            web.post(_JOBS, self.start_job),
            web.get("/v1/costs", self.show_costs),
            web.get("/v1/decisions", self.list_decisions),
            web.get("/v1/deadletters", self.list_dead_letters),
        ]

    async def list_jobs(self, _: web.Request) -> web.Response:
        return _jobs(list(self._tables.jobs.entries.values()))

    async def list_jobs_of_endpoint(self, request: web.Request) -> web.Response:
        name = request.match_info["endpoint"]
        endpoint = self._tables.desired.entries.get(name)
        jobs = [job for job in self._tables.jobs.entries.values() if job.endpoint == name]
        if not jobs and (endpoint is None or endpoint.spec.kind != "batch"):
            raise missing(f"batch endpoint '{name}'")
        return _jobs(jobs)

    async def start_job(self, request: web.Request) -> web.Response:
        """The job as the batch-runner took it, or 200 with the job when the same one was started before."""
        id = command_id(request)
        command = requests.start_job(request.match_info["endpoint"], requests.body_of(await body(request)), id)
        known = self._tables.jobs.entries.get(command.job)
        if known is None:
            await self._commands.start(command, id, lambda: command.job in self._tables.jobs.entries)
        elif known.command != command:
            raise Refused(409, "JobAlreadyExists", f"there is another job '{command.job}': choose another id")
        return web.json_response(views.job(self._job(command.job)), status=200 if known else 201)

    async def show_job(self, request: web.Request) -> web.Response:
        job = self._job(request.match_info["job"])
        return web.json_response(views.job(job, self._tables.progress(job.job)))

    async def cancel_job(self, request: web.Request) -> web.Response:
        """202: the batch-runner stops the job; read it until its status is final."""
        job = self._job(request.match_info["job"])
        await self._commands.start(CancelBatchJob(job=job.job), command_id(request), lambda: True)
        return web.json_response(views.job(self._job(job.job)), status=202)

    async def show_costs(self, request: web.Request) -> web.Response:
        since, until = requests.period(request.query)
        try:
            tree = cost_tree(self._tables.rollups.entries.values(), since, until, request.query.get("currency"))
        except MixedCurrencies as error:
            message = f"the costs are in {', '.join(error.args[0])}, which do not add up: choose one with ?currency="
            raise Refused(400, "BadArgument", message) from None
        return web.json_response(tree)

    async def list_decisions(self, _: web.Request) -> web.Response:
        decisions = sorted(self._tables.decisions.entries.values(), key=lambda decision: decision.key())
        return web.json_response({"value": [views.decision(decision) for decision in decisions]})

    async def list_dead_letters(self, _: web.Request) -> web.Response:
        return web.json_response({"value": [views.dead_letter(letter) for letter in self._tables.dead_letters()]})

    def _job(self, id: str) -> BatchJob:
        job = self._tables.jobs.entries.get(id)
        if job is None:
            raise missing(f"job '{id}'")
        return job


def _jobs(jobs: list[BatchJob]) -> web.Response:
    newest_first = sorted(jobs, key=lambda job: job.submitted_at, reverse=True)
    return web.json_response({"value": [views.job(job) for job in newest_first]})
