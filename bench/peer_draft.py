#!/usr/bin/env python3
"""Whether llama.cpp loads a drafter that `dspark quantize` wrote.

  peer_draft.py DRAFTER.gguf [TARGET.gguf]

Loads the file, and with a target makes a context beside the target's, which builds the drafter's graphs. Every
case runs in a process of its own, because llama.cpp ends the process when an assertion fails. Needs
llama_cpp (python bindings); prints its version.
"""
import ctypes
import os
import subprocess
import sys

LAST_WORDS = ("error", "assert", "fail")


def load(drafter, target):
    import llama_cpp

    lines = []

    @llama_cpp.llama_log_callback
    def keep(_level, text, _user):
        lines.append(text.decode(errors="replace").strip())

    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.n_gpu_layers = 0

    def report(ok, what):
        reasons = [line for line in lines if any(word in line.lower() for word in LAST_WORDS)]
        print(f"{what}: {'yes' if ok else 'no: ' + '; '.join(reasons[:2])}")
        return bool(ok)

    print("llama_cpp", llama_cpp.__version__)
    model = llama_cpp.llama_model_load_from_file(drafter.encode(), options)
    if not report(model, "loads") or not target:
        return bool(model)
    context = llama_cpp.llama_context_default_params()
    context.n_ctx, context.n_batch, context.n_ubatch = 256, 64, 64
    target_model = llama_cpp.llama_model_load_from_file(target.encode(), options)
    context.ctx_other = llama_cpp.llama_init_from_model(target_model, context)
    lines.clear()
    return report(llama_cpp.llama_init_from_model(model, context), "context beside the target")


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--child"]:
        sys.exit(0 if load(arguments[1], arguments[2] if len(arguments) > 2 else None) else 1)
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    result = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True,
                            env={**os.environ, "GGML_NO_BACKTRACE": "1"})
    print(result.stdout, end="")
    if result.returncode not in (0, 1):
        asserted = [line for line in result.stderr.splitlines() if "ASSERT" in line]
        print("ended by", asserted[0].split("/")[-1] if asserted else f"status {result.returncode}")
    sys.exit(0 if result.returncode == 0 else 1)


if __name__ == "__main__":
    main()
