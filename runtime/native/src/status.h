// What went wrong, as a value: the library is built without exceptions.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "edgewise.h"

namespace ew {

// A code and a sentence. Cheap when all is well: the message is only written on failure.
class Status {
public:
    Status() = default;
    bool ok() const { return code_ == EW_OK; }
    ew_status code() const { return code_; }
    const char* message() const { return message_; }

    __attribute__((format(printf, 2, 3))) static Status fail(ew_status code, const char* format, ...) {
        Status status;
        status.code_ = code;
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(status.message_, sizeof status.message_, format, arguments);
        va_end(arguments);
        return status;
    }

private:
    ew_status code_ = EW_OK;
    char message_[256] = "";
};

#define EW_TRY(expression)                                    \
    do {                                                      \
        if (::ew::Status ew_status_ = (expression); !ew_status_.ok()) return ew_status_; \
    } while (0)

}  // namespace ew
