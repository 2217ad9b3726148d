#!/usr/bin/env bash
# Installs what is missing, by Debian package: need.sh PROBE:PACKAGE ...
# A probe is a command, or one of: libclang (the library bindgen loads), venv (python's venv module).
set -euo pipefail

found() {
  compgen -G "$1" >/dev/null
}

present() {
  case "$1" in
    libclang) found '/usr/lib/llvm-*/lib/libclang*.so*' || found '/usr/lib/*/libclang*.so*' || found '/usr/lib64/libclang*.so*' || [ -n "${LIBCLANG_PATH:-}" ] ;;
    venv) python3 -c 'import venv, ensurepip' >/dev/null 2>&1 ;;
    # Debian keeps servers in /usr/sbin, which is not on every user's PATH.
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing=()
for need in "$@"; do
  present "${need%%:*}" || missing+=("${need#*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "please install: ${missing[*]} (Debian's package names; this system has no apt-get)" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "please install as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing ${missing[*]}" >&2
# A service that a package brings must not start: the tests run brokers of their own, on ports of their own.
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
