// Computing without Python's global interpreter lock.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <exception>

namespace pyconv {

// Runs `work` without the GIL. A daemon thread may come back when the interpreter has gone: to take
// the GIL then ends the thread, as an exception that nothing can catch for good, and that would end
// the process if it met a destructor such as pybind11's. The thread waits for the process to end,
// as Python's own do from 3.14 on.
template <class Work>
void without_gil(const Work& work) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  try {
    PyEval_RestoreThread(state);
  } catch (const abi::__forced_unwind&) {
    while (true) pause();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace pyconv
