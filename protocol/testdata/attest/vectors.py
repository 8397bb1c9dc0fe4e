#!/usr/bin/env python3
"""Makes vectors.json: every byte string of attestation that two implementations must agree on.

Written from the text of the specification (the doc comments of protocol/src/attest), with hashlib and
struct alone, so that a mistake in the Rust code is not repeated here. Run: vectors.py > vectors.json;
`vectors.py --check` fails when the committed file is another.
"""

import hashlib
import json
import pathlib
import struct
import sys

NONE, TDX, SNP, SIMULATED_TDX, SIMULATED_SNP = 0x00, 0x01, 0x02, 0xD1, 0xD2
OPEN, ATTESTED, CONFIDENTIAL = 0, 1, 2
NVIDIA, SIMULATED_NVIDIA = 0x01, 0xD1


def lp(part):
    """u32be(length) then the bytes."""
    return struct.pack(">I", len(part)) + part


def sha256(data):
    return hashlib.sha256(data).digest()


def sha512(data):
    return hashlib.sha512(data).digest()


def pattern(length, seed):
    """Bytes that repeat nowhere near, so that a shifted or cut field shows."""
    return bytes((seed + 7 * i + i // 251) % 256 for i in range(length))


# ---- what quotes are bound to

def identity(case):
    return sha512(
        lp(b"cocoon-node/tee/identity/v1")
        + lp(case["network"]) + lp(bytes([case["kind"]])) + lp(case["peer"]) + lp(case["public_key"])
        + lp(case["capabilities"]) + lp(struct.pack(">Q", case["not_before"]))
        + lp(struct.pack(">Q", case["not_after"])) + lp(case["configuration"])
    )


def session(case):
    return sha512(
        lp(b"cocoon-node/tee/session/v1")
        + lp(case["network"]) + lp(bytes([case["role"]])) + lp(case["exporter"]) + lp(case["nonce"])
        + lp(case["public_key"]) + lp(case["peer"]) + lp(case["gpu_digest"])
        + lp(case["model_manifest"] or b"")
    )


def record(case):
    return sha512(
        lp(b"cocoon-node/tee/record/v1")
        + lp(bytes([case["kind"]])) + lp(case["nonce"]) + lp(struct.pack(">Q", case["made_at"]))
        + lp(case["configuration"]) + lp(case["gpu_digest"])
    )


def gpu_nonce(case):
    return sha256(lp(b"cocoon-node/gpu/v1") + lp(case["exporter"]) + lp(case["nonce"])
                  + lp(struct.pack(">H", case["index"])))


def gpu_record_nonce(case):
    return sha256(lp(b"cocoon-node/gpu/record/v1") + lp(case["nonce"]) + lp(struct.pack(">H", case["index"])))


def gpu_digest(case):
    if not case["gpus"]:
        return bytes(32)
    return sha256(b"".join(lp(gpu["report"]) + lp(gpu["chain"]) for gpu in case["gpus"]))


# ---- policies

TCB_STATUS = [
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
    "OutOfDateConfigurationNeeded", "Revoked", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded",
]
PRODUCTS = ["Milan", "Genoa", "Turin"]
ARCHITECTURES = ["GH100", "GB100"]


def number(value):
    return struct.pack(">Q", value)


def listed(items):
    return number(len(items)) + b"".join(lp(item) for item in items)


def flags(rules, *names):
    return bytes(int(rules.get(name, False)) for name in names)


def tdx_rules(rules):
    out = listed([name.encode() for name in sorted(rules["tcb_status"], key=TCB_STATUS.index)])
    out += listed([name.encode() for name in rules.get("reject_advisories", [])])
    out += listed([bytes.fromhex(ppid) for ppid in rules.get("allowed_ppid", [])])
    out += number(rules["min_tcb_eval_data_number"]) + number(rules["max_collateral_age_h"] * 3_600_000)
    out += flags(rules, "allow_smt", "allow_dynamic_platform", "allow_cached_keys")
    out += number(len(rules["image"]))
    for image in rules["image"]:
        out += lp(image["name"].encode()) + listed([bytes.fromhex(value) for value in image["rtmr0"]])
        for register in ("mrtd", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig"):
            out += lp(bytes.fromhex(image.get(register, "00" * 48)))
    return out


def snp_rules(rules):
    out = listed([name.encode() for name in sorted(rules["products"], key=PRODUCTS.index)])
    for levels in (rules["min_tcb"], rules.get("min_launch_tcb", {})):
        out += number(len(levels))
        for product in sorted(levels, key=PRODUCTS.index):
            level = levels[product]
            out += lp(product.encode())
            out += lp(bytes(level.get(name, 0) for name in ("fmc", "bl", "tee", "snp", "ucode")))
    # No intermediate certificates of providers' keys: PEM is not for this script.
    out += number(0)
    out += number(rules.get("max_vmpl", 0)) + number(rules["max_crl_age_d"] * 86_400_000)
    out += flags(rules, "allow_smt", "require_single_socket", "require_ciphertext_hiding", "require_alias_check")
    out += listed([bytes.fromhex(chip) for chip in rules.get("allowed_chip_id", [])])
    out += number(len(rules["image"]))
    for image in rules["image"]:
        out += lp(image["name"].encode()) + lp(bytes.fromhex(image["measurement"]))
        out += listed([struct.pack(">I", image["vcpus"])] if "vcpus" in image else [])
        out += lp(bytes.fromhex(image.get("host_data", "00" * 32)))
        for key in ("id_key_digest", "author_key_digest"):
            out += listed([bytes.fromhex(image[key])] if key in image else [])
        out += number(image.get("min_guest_svn", 0))
    return out


def hashes(digits):
    return [bytes.fromhex(text) for text in digits]


def gpu_rules(rules):
    only = rules.get("identity_only")
    out = flags({**rules, "only": only is not None}, "required", "allow_missing_fwid", "only")
    out += listed([name.encode() for name in sorted(rules["arch"], key=ARCHITECTURES.index)])
    # Sets, so in the order of their bytes, however they are written.
    out += listed(sorted(hashes(rules.get("revoked_keys", []))))
    if only is not None:
        out += listed(sorted(version.encode() for version in only["drivers"]))
        out += listed(sorted(version.upper().encode() for version in only["vbios"]))
    out += number(len(rules.get("golden", [])))
    for golden in rules.get("golden", []):
        out += lp(golden["driver"].encode()) + lp(golden["vbios"].upper().encode())
        out += listed(hashes(golden.get("rim_sha256", [])))
        out += number(len(golden["measurements"]))
        for index in sorted(golden["measurements"], key=int):
            out += number(int(index)) + listed(hashes(golden["measurements"][index]))
    return out


def policy(case):
    rules = case["policy"]
    out = lp(b"cocoon-node/tee/policy/v1") + bytes([{"production": 0, "dev": 1}[rules["trust"]]])
    out += lp(rules.get("minimum_tier", "open").encode())
    if "tdx" in rules:
        out += lp(b"tdx") + lp(tdx_rules(rules["tdx"]))
    if "snp" in rules:
        out += lp(b"snp") + lp(snp_rules(rules["snp"]))
    if "gpu" in rules:
        out += lp(b"gpu") + lp(gpu_rules(rules["gpu"]))
    return sha256(out)


# ---- records

def evidence(case):
    return bytes([case["kind"]]) + lp(case["quote"])


def cbor_head(major, length):
    """RFC 8949, section 3, shortest form."""
    if length < 24:
        return bytes([major << 5 | length])
    for extra, code in ((1, "B"), (2, "H"), (4, "I")):
        if length < 1 << (8 * extra):
            return bytes([major << 5 | 23 + {1: 1, 2: 2, 4: 3}[extra]]) + struct.pack(">" + code, length)
    raise ValueError(length)


def der_octets(content):
    """X.690, section 10.1, shortest form."""
    length = len(content)
    if length < 0x80:
        head = bytes([length])
    else:
        digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
        head = bytes([0x80 | len(digits)]) + digits
    return b"\x04" + head + content


def extension(case):
    media = b"application/vnd.cocoon.tee-identity"
    record = b"\x01" + case["peer"] + case["capabilities"] + case["configuration"] + evidence(case)
    wrapper = (bytes([4 << 5 | 3]) + cbor_head(3, len(media)) + media
               + cbor_head(2, len(record)) + record + bytes([4]))
    return der_octets(wrapper)


def request(case):
    return b"\x01" + case["nonce"] + bytes([case["want"], case["gpu"]]) + case["policy"]


def response(case):
    return (b"\x01" + case["signature"] + lp(case["model_manifest"] or b"") + evidence(case)
            + lp(case["endorsements"]) + bytes([len(case["gpus"])])
            + b"".join(bytes([gpu["kind"]]) + lp(gpu["report"]) + lp(gpu["chain"]) for gpu in case["gpus"]))


# ---- the cases

def cases():
    network = sha256(b"cocoon-devnet")
    peer, key = pattern(32, 2), pattern(91, 3)
    base_identity = {
        "network": network, "kind": TDX, "peer": peer, "public_key": key, "capabilities": pattern(32, 4),
        "not_before": 1_800_000_000, "not_after": 1_800_021_600, "configuration": pattern(32, 5),
    }
    base_session = {
        "network": network, "role": 1, "exporter": pattern(32, 6), "nonce": pattern(32, 7),
        "public_key": key, "peer": peer, "gpu_digest": bytes(32), "model_manifest": pattern(32, 8),
    }
    base_record = {
        "peer": peer, "capabilities": pattern(32, 4), "configuration": pattern(32, 5),
        "kind": TDX, "quote": pattern(5006, 9),
    }
    base_request = {"nonce": pattern(32, 7), "want": ATTESTED, "gpu": 0, "policy": pattern(32, 10)}
    base_response = {
        "signature": pattern(64, 11), "model_manifest": pattern(32, 8), "kind": TDX,
        "quote": pattern(5006, 9), "endorsements": pattern(300, 12), "gpus": [],
    }
    # Sizes of a real report and chain; the smallest; and as many as there may be.
    nvidia = {"kind": NVIDIA, "report": pattern(4117, 33), "chain": pattern(3396, 34)}
    small = {"kind": SIMULATED_NVIDIA, "report": b"\x01", "chain": b"\x02"}
    eight = [{**small, "report": pattern(index, 35)} for index in range(1, 9)]
    gpus = [{"report": pattern(50, 13), "chain": pattern(70, 14)}, {"report": pattern(51, 15), "chain": b""}]
    swapped = [{"report": gpu["chain"], "chain": gpu["report"]} for gpu in gpus]
    yield "network", lambda case: sha256(case["name"].encode()), [{"name": "cocoon-devnet"}, {"name": ""}]
    yield "identity", identity, [
        base_identity,
        *({**base_identity, "kind": kind} for kind in (NONE, SNP, SIMULATED_TDX, SIMULATED_SNP)),
        {**base_identity, "public_key": b"", "not_before": 0, "not_after": 2**64 // 1000 - 1},
        {**base_identity, "network": bytes(32), "peer": bytes(32), "capabilities": bytes(32),
         "configuration": bytes(32)},
    ]
    yield "session", session, [
        base_session,
        {**base_session, "role": 2},
        {**base_session, "model_manifest": None},
        {**base_session, "role": 2, "model_manifest": None},
        {**base_session, "gpu_digest": gpu_digest({"gpus": gpus})},
        {**base_session, "exporter": bytes(32), "nonce": bytes(32), "public_key": b""},
    ]
    base_kept = {
        "kind": TDX, "nonce": pattern(32, 7), "made_at": 1_800_000_000, "configuration": pattern(32, 5),
        "gpu_digest": bytes(32),
    }
    yield "record", record, [
        base_kept,
        {**base_kept, "kind": SIMULATED_TDX, "made_at": 0, "gpu_digest": gpu_digest({"gpus": gpus})},
    ]
    yield "gpu_nonce", gpu_nonce, [
        {"exporter": pattern(32, 6), "nonce": pattern(32, 7), "index": index} for index in (0, 1, 7, 256, 65535)
    ]
    yield "gpu_record_nonce", gpu_record_nonce, [{"nonce": pattern(32, 7), "index": index} for index in (0, 1, 7, 256)]
    yield "gpu_digest", gpu_digest, [{"gpus": some} for some in ([], gpus[:1], gpus, gpus[::-1], swapped)]
    bare = {"version": 1, "trust": "production"}
    tdx_image = {
        "name": "one", "mrtd": pattern(48, 20).hex(), "rtmr0": [pattern(48, 21).hex(), pattern(48, 22).hex()],
        "rtmr1": pattern(48, 23).hex(), "rtmr2": pattern(48, 24).hex(), "rtmr3": pattern(48, 25).hex(),
    }
    tdx = {
        "tcb_status": ["SWHardeningNeeded", "UpToDate"], "reject_advisories": ["INTEL-SA-00001"],
        "min_tcb_eval_data_number": 17, "max_collateral_age_h": 168, "allow_smt": True, "allow_cached_keys": True,
        "allowed_ppid": [pattern(16, 26).hex()], "image": [tdx_image, {**tdx_image, "name": "two", "mrowner": pattern(48, 27).hex()}],
    }
    snp_image = {"name": "one", "measurement": pattern(48, 28).hex()}
    snp = {
        "products": ["Turin", "Milan"], "max_crl_age_d": 30, "max_vmpl": 1, "require_alias_check": True,
        "min_tcb": {"Turin": {"fmc": 1, "bl": 2, "tee": 3, "snp": 4, "ucode": 5}, "Milan": {"bl": 3, "tee": 0, "snp": 8, "ucode": 115}},
        "min_launch_tcb": {"Milan": {"bl": 2, "tee": 0, "snp": 7, "ucode": 100}},
        "allowed_chip_id": [pattern(64, 29).hex()],
        "image": [snp_image, {
            **snp_image, "name": "two", "vcpus": 16, "host_data": pattern(32, 30).hex(), "id_key_digest": pattern(48, 31).hex(),
            "author_key_digest": pattern(48, 32).hex(), "min_guest_svn": 4,
        }],
    }
    golden = {
        "driver": "550.90.07", "vbios": "96.00.9f.00.01", "rim_sha256": [pattern(32, 36).hex(), pattern(32, 37).hex()],
        # "10" stands behind "9" as a number, before it as a text.
        "measurements": {"9": [pattern(48, 38).hex()], "10": [pattern(48, 39).hex(), pattern(48, 40).hex()], "0": [pattern(48, 41).hex()]},
    }
    least_gpu = {"arch": []}
    gpu = {
        "required": True, "arch": ["GB100", "GH100"], "revoked_keys": [pattern(32, 43).hex(), pattern(32, 42).hex()],
        "golden": [golden, {**golden, "driver": "575.32", "rim_sha256": []}],
    }
    only = {"drivers": ["575.32", "550.90.07"], "vbios": ["97.00.aa.00.01", "96.00.9F.00.01"]}
    yield "policy", policy, [
        {"policy": some} for some in (
            bare, {**bare, "trust": "dev", "minimum_tier": "confidential"}, {**bare, "tdx": tdx}, {**bare, "snp": snp},
            {**bare, "minimum_tier": "attested", "tdx": tdx, "snp": snp},
            {**bare, "gpu": least_gpu}, {**bare, "gpu": gpu}, {**bare, "gpu": {**least_gpu, "arch": ["GH100"], "identity_only": only}},
            {**bare, "gpu": {**gpu, "allow_missing_fwid": True, "identity_only": {"drivers": [], "vbios": []}}},
            {**bare, "minimum_tier": "confidential", "tdx": tdx, "snp": snp, "gpu": {**gpu, "identity_only": only}},
        )
    ]
    yield "extension", extension, [
        base_record,
        {**base_record, "kind": NONE, "quote": b""},
        {**base_record, "kind": SNP, "quote": pattern(1184, 9)},
        {**base_record, "kind": SIMULATED_SNP, "quote": pattern(1184, 9)},
        # Around the steps of both length encodings.
        *({**base_record, "kind": SIMULATED_TDX, "quote": pattern(length, 9)} for length in (1, 154, 155, 65_395, 65_536)),
    ]
    yield "request", request, [
        base_request,
        {**base_request, "want": OPEN},
        {**base_request, "want": CONFIDENTIAL, "gpu": 1},
    ]
    yield "response", response, [
        base_response,
        {**base_response, "kind": NONE, "quote": b"", "endorsements": b"", "model_manifest": None},
        {**base_response, "kind": SIMULATED_TDX},
        {**base_response, "kind": SNP, "quote": pattern(1184, 9)},
        {**base_response, "kind": SIMULATED_SNP, "quote": pattern(1184, 9)},
        *({**base_response, "gpus": some} for some in ([nvidia], [small], [nvidia, small], eight)),
    ]


def shown(value):
    """Short byte strings in full; long ones by how they were made, and by their hash."""
    if isinstance(value, bytes):
        if len(value) <= 600:
            return value.hex()
        return {"length": len(value), "sha256": sha256(value).hex(), **made(value)}
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return value


def made(value):
    return {"seed": value[0]} if pattern(len(value), value[0]) == value else {}


def text():
    vectors = {name: [{**shown(case), "expected": shown(make(case))} for case in some] for name, make, some in cases()}
    return json.dumps(vectors, indent=1) + "\n"


if __name__ == "__main__":
    committed = pathlib.Path(__file__).with_name("vectors.json")
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if committed.read_text() == text() else f"{committed} is not what this script makes")
    sys.stdout.write(text())
