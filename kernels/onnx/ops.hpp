// Entry point of the ONNX operators of the domain "ruyicam"; see ops.cpp.
#pragma once

struct OrtSessionOptions;
struct OrtApiBase;
struct OrtStatus;

// What ONNX Runtime looks for in a library of operators. Null if all went well.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base);
