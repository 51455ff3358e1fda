# Copyright (c) kaleyra.whatsapp contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs that leave nothing behind: where a key can live, that nobody is shown it, and what slices see and publish."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from awx._runner import AWX, CREATE, ENSURE_KEY_PAIR, REGISTER, REGISTERS, Credential, Inventory, Job, on_cores
from support.endpoint.client import Endpoint
from support.keys import KeyPair, fingerprint_of, openssl, public_of, secret_lines
from support.playbook_runs import API_KEY, SID, WA_400, assert_nowhere, new_number, spellings
from support.simulator.client import Simulator, waba_numbers


def test_key_and_records_need_a_lasting_place(awx: AWX, simulator: Simulator, account: Credential) -> None:
    numbers = new_number(), new_number()
    private, cache = awx.lasting / "keys/private.pem", awx.lasting / "records"
    # As a survey gives what was not chosen.
    inventory = Inventory.of_numbers(*numbers, private_key_path=str(private), key_path_is_persistent="False", cache_path_is_persistent="")
    # The container by a name of its own is no other place.
    inventory.hosts["here"] = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    for playbook, key_host in ((REGISTER, "localhost"), (ENSURE_KEY_PAIR, "here")):
        inventory.variables["flows_encryption_key_host"] = key_host
        job = awx.run(playbook, inventory, credentials=[account], check=playbook == REGISTER)
        assert job.status == "failed" and set(job.summary("failures")) == ({*numbers} if playbook == REGISTER else {"localhost"}), job.stdout
        for way_out in ("flows_encryption_key_host", "flows_encryption_key_path_is_persistent", "KALEYRA_FLOWS_PRIVATE_KEY_FILE"):
            assert way_out in job.text
        assert not private.parent.exists() and simulator.count() == 0

    # The administrator has exposed a path for the key, but the records are forgotten.
    inventory.variables["flows_encryption_key_path_is_persistent"] = "yes"
    job = awx.run(REGISTER, inventory, credentials=[account])
    assert job.status == "successful" and job.reasons() == dict.fromkeys(numbers, "absent"), job.stdout
    assert job.text.count("and lost with it") == 1
    for part in ("registers every number again", "flows_encryption_api_host", "flows_encryption_cache_path_is_persistent"):
        assert part in job.text
    assert sum(".ansible/kaleyra_flows_encryption/" in name and not name.endswith("lock") for name in job.vanished) == 2, job.vanished
    content = private.read_text()

    # So they are registered once more, with the same key, and from here on the records last, too.
    inventory.variables.update(flows_encryption_cache_path=str(cache), flows_encryption_cache_path_is_persistent=True)
    job = awx.run(REGISTER, inventory, credentials=[account])
    assert (job.status, job.reasons()) == ("successful", dict.fromkeys(numbers, "absent")), job.stdout
    assert len(list(cache.glob("*.json"))) == 2 and "and lost with it" not in job.text and private.read_text() == content
    fingerprint = fingerprint_of(public_of(private))
    assert (simulator.registered(), simulator.count()) == ({SID: dict.fromkeys(numbers, fingerprint)}, 4)


def test_read_back_second_job_registers_nothing(awx: AWX, simulator: Simulator, account: Credential, key: KeyPair) -> None:
    """Nothing lasts from job to job; token and account IDs come with the credential."""
    numbers, token = [new_number(), new_number()], "EAAtoken-of-the-jobs-2001"
    simulator.configure(access_token=token, wabas={"1001": waba_numbers(numbers)})
    inventory = Inventory.of_numbers(*numbers, read_back="meta", meta_api_url=f"{simulator.url}/v23.0", public_key=key.public)
    credential = account.but(meta_access_token=token, meta_waba_ids="1001")
    for reason in ("absent", "up_to_date"):
        job = awx.run(REGISTER, inventory, credentials=[credential])
        assert job.status == "successful" and job.reasons() == dict.fromkeys(numbers, reason), job.stdout
        assert simulator.methods()["POST"] == 2
        assert "and lost with it" not in job.text
        assert_nowhere([token], {"output": job.stdout, **job.files})
    assert simulator.registered() == {SID: dict.fromkeys(numbers, key.fingerprint)}


def test_private_key_by_credential_is_used(awx: AWX, simulator: Simulator, account: Credential, key: KeyPair) -> None:
    """As forms give it: with CRLF and without a last line break; encrypted, with a passphrase that is right or wrong."""
    passphrase, app_secret = "Open-Sesame-3001", "App-Secret-3002"
    encrypted = openssl("pkey", "-aes256", "-passout", f"pass:{passphrase}", stdin=key.private)
    numbers = new_number(), new_number()
    inventory = Inventory.of_numbers(*numbers)
    plain = account.but(private_key=key.private.strip().replace("\n", "\r\n"))
    protected = account.but(private_key=encrypted.replace("\n", "\r\n"), private_key_passphrase=passphrase, app_secret=app_secret)
    mistaken = protected.but(private_key_passphrase="Open-Barley-3003")

    def run(playbook: str, credential: Credential) -> Job:
        """Run a job that says and leaves the most."""
        return awx.run(playbook, inventory, credentials=[credential], diff=True, verbosity=4, fact_cache=True)

    published = run(ENSURE_KEY_PAIR, plain)
    assert published.status == "successful" and not published.summary("changed"), published.stdout
    assert published.artifacts == {"flows_encryption_public_key": key.public, "flows_encryption_fingerprint": key.fingerprint}

    with_key = awx.lasting / "private.pem"
    with_key.write_text(key.private)
    with Endpoint(awx.lasting / "list", [with_key], app_secret=app_secret) as endpoint:
        inventory.variables["flows_encryption_endpoint_url"] = endpoint.url
        registered = run(REGISTER, protected)
        assert set(endpoint.answered()) == {200, 421, 432}  # 432: the wrong signature was refused, the right one was not
        del inventory.variables["flows_encryption_endpoint_url"]
    assert registered.status == "successful" and registered.reasons() == dict.fromkeys(numbers, "absent"), registered.stdout
    assert simulator.registered() == {SID: dict.fromkeys(numbers, key.fingerprint)}
    assert not registered.of(CREATE)

    refused = run(REGISTER, mistaken)
    assert refused.status == "failed" and simulator.count() == 2, refused.stdout
    assert "passphrase" in refused.text.lower()

    jobs = {"published": published, "registered": registered, "refused": refused}
    artifacts = {(name, path): text for name, job in jobs.items() for path, text in {**job.files, **job.vanished}.items()}
    # The search finds the lines of the public key, which are no secret.
    with pytest.raises(AssertionError, match="is in .*job_events"):
        assert_nowhere(secret_lines(key.public), {place: text for place, text in artifacts.items() if "job_events" in place[1]})
    secrets = [text for secret in (API_KEY, passphrase, "Open-Barley-3003", app_secret) for text in spellings(secret)]
    assert_nowhere([*secrets, *secret_lines(key.private), *secret_lines(encrypted)], artifacts)
    # What AWX would store in its database: a file for each host, in which there is nothing.
    cached = {path: text for path, text in artifacts.items() if path[1].startswith("fact_cache/")}
    assert set(cached.values()) <= {"{}", '{"__payload__": "{}"}'}, cached


@on_cores("2.16")
def test_slices_then_relaunch_on_failed_hosts(awx: AWX, simulator: Simulator, account: Credential, key: KeyPair) -> None:
    """Three slices at once, which see neither each other's numbers nor the key host. The job before has published the public key."""
    numbers = [new_number() for dummy in range(6)]
    disabled = new_number()
    inventory = Inventory.of_numbers(
        *(*numbers, disabled),
        hosts={"endpoint": {"ansible_host": "127.0.0.1"}},
        key_host="endpoint",
        private_key_path="/etc/flows/private.pem",
        cache_path=str(awx.lasting),
        cache_path_is_persistent=True,
    )
    inventory.disabled = frozenset({disabled})
    simulator.faults({numbers[1]: [WA_400]})

    def register(slice_number: int = 1, slice_count: int = 1, limit: str = "", public_key: str = key.public) -> Job:
        given = {"flows_encryption_public_key": public_key}
        return awx.run(REGISTER, inventory, credentials=[account], extra_vars=given, limit=limit, slice_of=(slice_number, slice_count))

    def outcome(status: str) -> dict[str, Any]:
        return {"changed": status == "absent", "status": status, "fingerprint": None if status == "failed" else key.fingerprint}

    with ThreadPoolExecutor() as pool:
        slices = list(pool.map(lambda number: register(number, 3), (1, 2, 3)))
    for number, job in enumerate(slices):
        failed = {numbers[1]} & {*numbers[number::3]}
        assert (job.status, {*job.summary("failures")}) == ("failed" if failed else "successful", failed), job.stdout
        published = {own: outcome("failed" if own in failed else "absent") for own in numbers[number::3]}
        assert job.artifacts == {"flows_encryption_numbers": published}
        # Only this is done for each host of a job. All else, and the publishing, is done once.
        tasks = Counter(event["event_data"]["task"] for event in job.events if event["event"] in ("runner_on_ok", "runner_on_failed"))
        assert {task for task, count in tasks.items() if count > 1 and not task.startswith("Validating arguments")} == {REGISTERS}

    # A job with another part of the inventory finds the records of the slices.
    again = register(limit=",".join([*slices[1].summary("failures"), numbers[5]]))
    assert again.status == "successful" and {*again.summary("changed")} == {numbers[1]}, again.stdout
    assert again.artifacts == {"flows_encryption_numbers": {numbers[1]: outcome("absent"), numbers[5]: outcome("up_to_date")}}
    assert (simulator.registered(), simulator.count()) == ({SID: dict.fromkeys(numbers, key.fingerprint)}, 7)

    # Without the public key, a slice that lacks the key host says what to do.
    lost = register(2, 3, public_key="")
    assert lost.status == "failed", lost.stdout
    assert re.search(r"The key host endpoint cannot be reached: .*Failed to connect to the host via ssh", lost.text)
    for part in ("not a host of this inventory", "kaleyra.whatsapp.flows_key_pair", "flows_encryption_public_key"):
        assert part in lost.text
    assert simulator.count() == 7
