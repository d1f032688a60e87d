# Included by llama.cpp's own project(): compiles its sources in batches, which takes three minutes on two cores instead of nine.
# Only what is compiled together changes, not what is compiled. Sources that do not stand beside others in one batch are left alone;
# found by trying with the version that llama_server.py names.

function(compile_in_batches)
    foreach(target llama llama-common server-context llama-server-impl mtmd)
        set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 64)
        get_target_property(sources ${target} SOURCES)
        if(target STREQUAL "llama")
            list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/src/ REGEX "^[a-z]")
        endif()
        set_source_files_properties(${sources} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION OFF)
    endforeach()
    foreach(alone
            llama:src/models/glm5-next.cpp llama:src/models/deepseek4.cpp llama:src/llama-kv-cache-dsv4.cpp
            llama-common:common/json.cpp llama-common:common/jinja/value.cpp
            mtmd:tools/mtmd/mtmd-helper.cpp mtmd:tools/mtmd/mtmd-helper-gen.cpp)
        string(REPLACE ":" ";" pair ${alone})
        list(GET pair 0 target)
        list(GET pair 1 source)
        set_source_files_properties(${CMAKE_SOURCE_DIR}/${source} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endforeach()
    # The arithmetic is worth optimising, the rest is not worth waiting for.
    target_compile_options(ggml-cpu PRIVATE -O2)
endfunction()

# When all targets exist.
cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL compile_in_batches)
