env -C / pwd; ( cd / && pwd ); pwd | sed 's,.*/,,' | wc -l
