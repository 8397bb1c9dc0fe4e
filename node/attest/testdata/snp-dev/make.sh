#!/usr/bin/env bash
# Makes the public test PKI for simulated SEV-SNP in this folder: NOT A TEE, and no key here is a secret.
# Run it only to replace all of it: nodes of two builds understand each other by these very certificates.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$PWD
cd "$work"
pss=(-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:48 -sigopt rsa_mgf1_md:sha384)

key() { openssl genpkey -quiet "${@:2}" -out "$1.key"; openssl pkcs8 -topk8 -nocrypt -in "$1.key" -outform DER -out "$here/PUBLIC-TEST-KEY-$1.p8"; }
key ark -algorithm RSA -pkeyopt rsa_keygen_bits:4096
key ask -algorithm RSA -pkeyopt rsa_keygen_bits:4096
key vcek -algorithm EC -pkeyopt ec_paramgen_curve:P-384

chip=$(printf 'DE%.0s:' {1..64})
cat > config <<C
[authority]
new_certs_dir = .
database = index
serial = serial
crlnumber = number
default_md = sha384
policy = any
crl_extensions = crl
unique_subject = no
email_in_dn = no
[any]
organizationalUnitName = optional
organizationName = optional
commonName = supplied
[req]
distinguished_name = any
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[intermediate]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign
[vcek]
1.3.6.1.4.1.3704.1.1 = DER:02:01:01
1.3.6.1.4.1.3704.1.2 = DER:16:08:4D:69:6C:61:6E:2D:42:30
1.3.6.1.4.1.3704.1.3.1 = DER:02:01:03
1.3.6.1.4.1.3704.1.3.2 = DER:02:01:00
1.3.6.1.4.1.3704.1.3.3 = DER:02:01:08
1.3.6.1.4.1.3704.1.3.8 = DER:02:01:73
1.3.6.1.4.1.3704.1.4 = DER:${chip%:}
[crl]
authorityKeyIdentifier = keyid
C
: > index
echo 01 > number

name() { echo "/OU=NOT A TEE/O=COCOON DEV - NO SECURITY/CN=$1"; }
issue() { # issue KEY SERIAL SUBJECT EXTENSIONS [CA OPTION…]
  openssl req -new -key "$1.key" -config config -subj "$(name "$3")" -out "$1.csr"
  echo "$2" > serial
  openssl ca -batch -notext -config config -name authority -in "$1.csr" -out "$1.pem" -extensions "$4" \
    -startdate 20240101000000Z -enddate 20490101000000Z "${pss[@]}" "${@:5}"
  openssl x509 -in "$1.pem" -outform DER -out "$here/$1.der"
}
issue ark 010000 "ARK-COCOON DEV - NOT A TEE" root -selfsign -keyfile ark.key
issue ask 010001 "SEV-COCOON DEV - NOT A TEE" intermediate -keyfile ark.key -cert ark.pem
issue vcek 00 "VCEK-COCOON DEV - NOT A TEE" vcek -keyfile ask.key -cert ask.pem

# The simulation signs a fresh list each hour; these two are openssl's, for the tests.
list() {
  openssl ca -gencrl -config config -name authority -keyfile ark.key -cert ark.pem -md sha384 "${pss[@]}" \
    -crl_lastupdate 20270101000000Z -crl_nextupdate 20270701000000Z -out list.pem
  openssl crl -in list.pem -outform DER -out "$here/$1.der"
}
: > index
list crl
printf 'R\t490101000000Z\t270101000000Z\t010001\tunknown\t/CN=SEV\n' > index
list crl-revoked
