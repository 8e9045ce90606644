// One JSON object, written as it comes; numbers that JSON has no word for become null.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace bench {

class Json {
public:
    Json& open(const char* name = nullptr) { return begin(name, '{'); }
    Json& open_list(const char* name = nullptr) { return begin(name, '['); }
    Json& close() { return end('}'); }
    Json& close_list() { return end(']'); }

    Json& text(const char* name, const std::string& value) {
        key(name);
        quote(value);
        return *this;
    }
    Json& number(const char* name, double value) {
        char digits[32];
        std::snprintf(digits, sizeof digits, "%.17g", value);
        return raw(name, std::isfinite(value) ? digits : "null");
    }
    Json& integer(const char* name, int64_t value) { return raw(name, std::to_string(value).c_str()); }
    Json& boolean(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
    Json& null(const char* name) { return raw(name, "null"); }
    // A number that is NaN where it could not be read.
    Json& numbers(const char* name, const std::vector<double>& values) {
        open_list(name);
        for (const double value : values) number(nullptr, value);
        return close_list();
    }
    const std::string& str() const { return out_; }

private:
    Json& begin(const char* name, char bracket) {
        key(name);
        out_ += bracket;
        first_ = true;
        return *this;
    }
    Json& end(char bracket) {
        out_ += bracket;
        first_ = false;
        return *this;
    }
    Json& raw(const char* name, const char* value) {
        key(name);
        out_ += value;
        return *this;
    }
    void key(const char* name) {
        if (!first_) out_ += ',';
        first_ = false;
        if (!name) return;
        quote(name);
        out_ += ':';
    }
    // Bytes above 127 pass as they are: names are UTF-8.
    void quote(const std::string& value) {
        out_ += '"';
        for (const char c : value) {
            if (c == '"' || c == '\\') out_ += '\\';
            if (static_cast<unsigned char>(c) >= 0x20) {
                out_ += c;
                continue;
            }
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
            out_ += escape;
        }
        out_ += '"';
    }

    std::string out_;
    bool first_ = true;
};

}  // namespace bench
