<?php
// Proves a restored site: WordPress runs on its tables, somebody can administer it, and every uploaded file that the
// library lists is there.

declare(strict_types=1);

require __DIR__ . '/wordpress.php';

if (!is_blog_installed()) {
    fail('WordPress\'s tables are not there');
}
if (!get_users(['role' => 'administrator', 'number' => 1])) {
    fail('nobody is administrator');
}
$missing = [];
foreach (get_posts(['post_type' => 'attachment', 'post_status' => 'any', 'numberposts' => -1, 'fields' => 'ids']) as $id) {
    $file = get_attached_file($id);
    if ($file && !is_file($file)) {
        $missing[] = $file;
    }
}
if ($missing) {
    fail(count($missing) . ' uploaded files are missing, such as ' . $missing[0]);
}
