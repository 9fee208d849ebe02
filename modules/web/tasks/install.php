<?php
// Makes WordPress's tables, its first content and its administrator in an empty database; brings those of an older
// WordPress up to date. Doing it twice does no harm.

declare(strict_types=1);

define('WP_INSTALLING', true);
require __DIR__ . '/wordpress.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

// Pluggable: nobody is written to.
function wp_new_blog_notification($title, $url, $id, $password)
{
}

$locale = allotment_locale(ALLOTMENT_LANGUAGE) ?? '';
if ($locale !== '') {
    load_default_textdomain($locale); // for the first content
}
if (!is_blog_installed()) {
    $options = ALLOTMENT_OPTIONS;
    $mail = $options['admin_email'] ?: 'nobody@' . parse_url(WP_HOME, PHP_URL_HOST);
    $made = wp_install($options['blogname'], 'admin', $mail, true, '', administrator(), $locale);
    if (empty($made['user_id']) || !is_blog_installed()) {
        fail('cannot make WordPress\'s tables');
    }
    update_option('permalink_structure', '/%year%/%monthnum%/%postname%/');
} else {
    wp_upgrade();
}
if ((int) get_option('db_version') !== (int) $GLOBALS['wp_db_version']) {
    fail('the tables are of version ' . get_option('db_version') . ', not ' . $GLOBALS['wp_db_version']);
}
