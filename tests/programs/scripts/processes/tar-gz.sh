tar czf t.tgz numbers words && tar tzf t.tgz && gzip -dc t.tgz | wc -c
